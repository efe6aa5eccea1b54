"""The CUDA image on a stand-in for NVIDIA's base: everything of it that needs no GPU. A node has the driver's libraries."""
import json
import re
import subprocess
import urllib.request

import pytest
from container import FOLDER, HARDENED, IMAGE, container, podman, ports, wait_ready
from trireme_server import write_model

LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.fixture(scope="module")
def root():
    """The image's files."""
    folder = podman("image", "mount", IMAGE)
    try:
        yield folder
    finally:
        podman("image", "unmount", IMAGE)


def files(root):
    found = subprocess.run(["find", f"{root}/opt/trireme", "-type", "f"], capture_output=True, text=True, check=True).stdout.split()
    return [file for file in found if open(file, "rb").read(4) == b"\x7fELF"]


def test_the_containerfile_names_its_base_by_digest():
    text = (FOLDER / "context/Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.M)
    assert re.fullmatch(r"[a-z0-9./-]+@sha256:[0-9a-f]{64}", base)
    config = json.loads(podman("image", "inspect", IMAGE))[0]["Config"]
    assert config["User"] == "1000:1000" and config["StopSignal"] == "SIGTERM"
    environment = dict(one.split("=", 1) for one in config["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all" and environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_every_library_that_a_file_names_is_found(root):
    programs = files(root)
    names = [file.rsplit("/", 1)[1] for file in programs]
    assert {"trireme", "trireme-gpu", "libtrireme_tensorrtllm.so", "libtrireme_cpu.so"} <= set(names)
    for file in programs:
        inside = file[len(root):]
        told = podman("run", "--rm", "--network=none", *HARDENED, "--entrypoint", LOADER, IMAGE, "--list", inside, check=False)
        assert told.returncode == 0 and "not found" not in told.stdout, (inside, told.stdout, told.stderr)


def symbols(file):
    """The functions that a library has, without their versions."""
    text = subprocess.run(["readelf", "--dyn-syms", "--wide", file], capture_output=True, text=True, check=True).stdout
    return {words[7].split("@")[0] for words in map(str.split, text.splitlines()) if len(words) > 7 and words[6] != "UND"}


# They are found by name when the first model is loaded, so that no linker has seen to it.
PRODUCTS = [f"cublasLt{name}" for name in (
    "Create", "Destroy", "Matmul", "MatmulAlgoGetHeuristic", "MatmulDescCreate", "MatmulDescDestroy", "MatmulDescSetAttribute",
    "MatrixLayoutCreate", "MatrixLayoutDestroy", "MatmulPreferenceCreate", "MatmulPreferenceDestroy", "MatmulPreferenceSetAttribute")]


def test_every_function_for_products_is_there(root):
    backend = open(f"{root}/opt/trireme/bin/backends/tensorrtllm/libtrireme_tensorrtllm.so", "rb").read()
    assert [name for name in PRODUCTS if name.encode() not in backend] == []
    assert [name for name in PRODUCTS if name not in symbols(f"{root}/usr/local/cuda/lib64/libcublasLt.so.13")] == []


def test_kernels_can_be_compiled_in_it():
    """With the library of the base, as the server does where no compiled kernel fits the chip."""
    told = podman("run", "--rm", "--network=none", *HARDENED, "--tmpfs", "/tmp", "--entrypoint", "/opt/trireme/bin/trireme-gpu", IMAGE,
                  "kernels", "/tmp/kernels", timeout=1200)
    assert told


def test_the_backend_loads_and_says_what_is_missing(tmp_path):
    """On a node without a driver the model says so, and the others are served."""
    write_model(tmp_path, "gpu", 'name: "gpu"\nbackend: "tensorrtllm"\n')
    write_model(tmp_path, "identity", (
        'name: "identity"\nbackend: "identity"\nmax_batch_size: 4\n'
        'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\noutput [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'))
    for file in [tmp_path, *tmp_path.rglob("*")]:
        file.chmod(0o755 if file.is_dir() else 0o644)
    (port, *_), flags = ports()
    with container("serve", "--model-repository=/models", "--exit-on-error=false", "--strict-readiness=false", *flags, models=tmp_path) as name:
        wait_ready(port, lambda: podman("logs", name, check=False).stderr)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/repository/index", b"", timeout=10) as answer:
            index = {model["name"]: model for model in json.load(answer)}
        assert index["identity"]["state"] == "READY"
        assert index["gpu"]["state"] == "UNAVAILABLE" and "no NVIDIA driver on this machine" in index["gpu"]["reason"], index
        podman("stop", "--time=30", name)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
