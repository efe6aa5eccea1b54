"""The image, run as a careful cluster runs it: no root, no capabilities, a read-only root, limits."""
import json
import pathlib
import time
import urllib.request

import pytest
from container import FOLDER, HARDENED, IMAGE, MODELS, container, podman, ports, wait_ready
from trireme_server import ROOT, free_port

# The README's first request.
QUESTION = {"text_input": "What is the capital of France?", "max_tokens": 32, "temperature": 0}


def ask(port):
    body = json.dumps(QUESTION).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/smollm2/generate", body, timeout=60) as answer:
        return json.load(answer)["text_output"]


# As it is, as the command of upstream's image, and as its entry point: what manifests say.
STARTS = {
    "own": ([], ["serve", "--model-repository=/models"]),
    "upstream-arguments": ([], ["tritonserver", "--model-store=/models"]),
    "upstream-command": (["--entrypoint", "tritonserver"], ["--model-repository=/models"]),
    "upstream-path": (["--entrypoint", "/opt/tritonserver/bin/tritonserver"], ["--model-repository=/models"]),
}


@pytest.mark.parametrize("start", STARTS)
def test_it_answers_and_drains(start):
    options, arguments = STARTS[start]
    (port, _, metrics), flags = ports()
    with container(*arguments, *flags, options=options) as name:
        wait_ready(port, lambda: podman("logs", name, check=False).stderr)
        assert "The capital of France is Paris." in ask(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
            assert b'nv_inference_request_success{model="smollm2"' in answer.read()
        podman("exec", name, "/opt/trireme/bin/trireme", "healthcheck", f"--url=http://127.0.0.1:{port}")
        assert podman("exec", name, "/opt/trireme/bin/trireme", "healthcheck", "--url=http://127.0.0.1:1", check=False).returncode == 1
        process = int(podman("inspect", "--format", "{{.State.Pid}}", name))
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line)
        assert set(status["Uid"].split()) == {"1000"} and set(status["Gid"].split()) == {"1000"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1"
        podman("stop", "--time=30", name)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", name) == "0"


def test_upstreams_ports_and_places_are_the_defaults():
    config = json.loads(podman("image", "inspect", IMAGE))[0]["Config"]
    assert config["User"] == "1000:1000" and config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp", "8002/tcp"}
    assert {"title", "description", "licenses", "version"} <= {label.rsplit(".", 1)[1] for label in config["Labels"]}
    with container(network="none") as name:
        end = time.monotonic() + 240
        while podman("exec", name, "/opt/trireme/bin/trireme", "healthcheck", check=False).returncode:
            assert time.monotonic() < end, podman("logs", name, check=False).stderr
            time.sleep(0.2)


def test_there_is_no_shell_and_nothing_can_be_written():
    folder = pathlib.Path(podman("image", "mount", IMAGE))
    try:
        names = {file.name for place in ("bin", "usr/bin", "usr/sbin", "sbin") for file in (folder / place).glob("*")}
        assert not names & {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "python3"}
        assert [str(f) for f in folder.rglob("*") if not f.is_symlink() and f.is_file() and f.stat().st_mode & 0o6002] == []
    finally:
        podman("image", "unmount", IMAGE)
    (_, _, _), flags = ports()
    with container("serve", "--model-repository=/models", "--log-file=/opt/log", *flags) as name:
        assert podman("wait", name) == "1"
        assert "--log-file" in podman("logs", name, check=False).stderr


def test_a_batch_runs_in_it(tmp_path):
    call = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "minilm", "input": "Rain"}}
    (tmp_path / "in.jsonl").write_text(json.dumps(call) + "\n")
    tmp_path.chmod(0o777)
    podman("run", "--rm", "--network=none", *HARDENED, "--volume", f"{MODELS}:/models:ro", "--volume", f"{tmp_path}:/batch", IMAGE,
           "batch", "--model-repository=/models", "--load-model=minilm", "--input=/batch/in.jsonl", "--output=/batch/out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["response"]["status_code"] == 200


def test_a_pod_manifest_plays(tmp_path):
    port = free_port()
    text = (ROOT / "deploy/docker/pod.yaml").read_text()
    text = text.replace("image: trireme:0.1.0", f"image: {IMAGE}").replace("path: /models", f"path: {MODELS}", 1)
    text = text.replace("hostPort: 8000", f"hostPort: {port}")
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(text)
    podman("play", "kube", "--build=false", manifest)
    try:
        wait_ready(port, lambda: podman("logs", "trireme-server", check=False).stderr)
        assert "The capital of France is Paris." in ask(port)
    finally:
        podman("play", "kube", "--down", manifest)


def test_the_bill_of_materials_is_one(tmp_path):
    bill = json.loads((FOLDER / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    names = {component["name"] for component in bill["components"]}
    assert {"trireme", "tokio", "hyper", "trireme-backend-cpu", "libc6", "ca-certificates"} <= names
    assert not names & {"trireme-backend-hostile", "proptest", "xtask"}
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references) > 150
    assert all(c.get("licenses") and c.get("hashes") for c in bill["components"] if c["purl"].startswith("pkg:cargo") and "trireme" not in c["name"])
