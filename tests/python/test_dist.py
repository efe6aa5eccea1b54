"""The tree that `cargo xtask dist` writes: it runs where it is put, knows nothing of the folder that it was built in, and
needs no tool of the build."""
import json
import shutil
import subprocess

import pytest

from test_cuda import DRIVER, model
from trireme_server import ROOT, TARGET, Server, identity, write_model

# What a machine has that has nothing of ours.
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/", "CARGO_HOME": "/none", "RUSTUP_HOME": "/none"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    built, moved = folder / "built", folder / "elsewhere/trireme"
    command = [TARGET / "xtask", "dist", "--no-build", "--profile", "release", "--out", built]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    moved.parent.mkdir()
    shutil.move(built, moved)
    yield moved
    shutil.rmtree(folder)


def run(tree, *arguments):
    return subprocess.run([tree / arguments[0], *arguments[1:]], cwd="/", env=BARE, capture_output=True, text=True, timeout=60)


def test_it_is_all_that_serving_needs_and_nothing_else(tree):
    assert {path.name for path in tree.iterdir()} == {"backends", "trireme", "trireme-plan", "trireme-gpu"}
    backends = {path.name for path in (tree / "backends").iterdir()}
    assert {"cpu", "tensorrtllm", "tokenizer", "python", "onnxruntime"} <= backends and "hostile" not in backends
    # Not what lies beside them where they were built, as ONNX Runtime's library does for the tests.
    files = {path.relative_to(tree / "backends").as_posix() for path in (tree / "backends").rglob("*") if not path.is_dir()}
    assert files == {f"{name}/libtrireme_{name}.so" for name in backends}
    for path in (tree / "backends").rglob("*"):
        assert not path.is_symlink(), path
    for name in ("trireme", "trireme-plan", "trireme-gpu"):
        said = run(tree, name, "--help")
        assert said.returncode == 0 and said.stdout, said.stderr
    # No library of the build's own folder, none that is missing.
    needed = subprocess.run(["ldd", tree / "trireme", *(tree / "backends").glob("*/*.so")], capture_output=True, text=True, check=True)
    assert "not found" not in needed.stdout and str(ROOT) not in needed.stdout, needed.stdout


def test_it_serves_from_its_own_backends(tree, tmp_path):
    write_model(tmp_path / "first", "identity", identity())
    model(tmp_path / "second")
    with Server([tmp_path / "first", tmp_path / "second"], "--backend-fallback=tensorrtllm=cpu", binary=tree / "trireme", backends=None, env=BARE) as server:
        body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}).encode()
        assert server.raw("POST", "/v2/models/identity/infer", body)[0] == 200, server.output()
        asked = json.dumps({"text_input": "ab", "max_tokens": 2}).encode()
        assert server.raw("POST", "/v2/models/m/generate", asked)[0] == 200, server.output()


@pytest.mark.skipif(DRIVER, reason="this machine has a driver")
def test_without_a_driver_each_program_says_so_in_one_sentence(tree, tmp_path):
    model(tmp_path)
    for command in ("explain", "profile"):
        said = run(tree, "trireme", command, tmp_path / "m")
        assert said.returncode == 1, said
        assert said.stderr == "error: there is no NVIDIA driver on this machine (libcuda.so.1 cannot be opened)\n"
        # What needs no GPU is printed all the same.
        assert ("without a GPU: weights " in said.stdout) == (command == "profile"), said.stdout


def test_a_folder_with_anything_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    command = [TARGET / "xtask", "dist", "--no-build", "--profile", "release", "--out", tmp_path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode != 0 and "holds 'notes.txt', which is no part of a tree" in run.stderr, run.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"
