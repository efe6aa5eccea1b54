"""NVIDIA's load generators against a real server: perf_analyzer over KServe and OpenAI's API, aiperf over OpenAI's API.

They are large downloads, so this is for the full run.
"""
import json
import os
import re
import subprocess

import pytest

from trireme_server import ROOT, Server

HOME = ROOT / "target" / "peers" / "loaders"
REQUESTS = 24

pytestmark = pytest.mark.skipif(
    "TRIREME_TEST_FULL" not in os.environ or os.uname().machine != "x86_64", reason="300 MB of loaders, for x86-64: --full")


@pytest.fixture(scope="module")
def loaders():
    subprocess.run([ROOT / "tests" / "peers" / "loaders" / "install.sh", HOME], check=True)


@pytest.fixture(scope="module")
def server(loaders):
    with Server(ROOT / "model_repository", "--allow-client-shm=true") as server:
        yield server
        server.alive()


def perf_analyzer(model, address, *options):
    command = [HOME / "perf_analyzer", "-m", model, "-u", address, "--request-count", str(REQUESTS), "--concurrency-range", "4"]
    ran = subprocess.run([*command, *options], text=True, capture_output=True, timeout=300)
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(rf"Request count: {REQUESTS}\b", ran.stdout), ran.stdout
    return ran.stdout


@pytest.mark.parametrize("protocol, shared", [("http", "none"), ("grpc", "none"), ("http", "system"), ("grpc", "system")])
def test_perf_analyzer_on_tensors(server, protocol, shared):
    port = server.http if protocol == "http" else server.grpc
    said = perf_analyzer("simple", f"127.0.0.1:{port}", "-i", protocol, "--shared-memory", shared)
    assert int(re.search(r"Client:\s+Request count: (\d+)", said)[1]) == REQUESTS
    # It looks at the server's own count for the first time when some requests are over already.
    assert 0 < int(re.search(r"Successful request count: (\d+)", said)[1]) <= REQUESTS


def test_perf_analyzer_on_a_stream_of_text(server, tmp_path):
    data = {"text_input": ["What is the capital of France?"], "max_tokens": [16], "temperature": [0.0], "stream": [True]}
    (tmp_path / "data.json").write_text(json.dumps({"data": [data]}))
    perf_analyzer("smollm2", f"127.0.0.1:{server.grpc}", "-i", "grpc", "--streaming", "--async", "--input-data", tmp_path / "data.json",
                  "--profile-export-file", tmp_path / "out.json")
    requests = json.loads((tmp_path / "out.json").read_text())["experiments"][0]["requests"]
    assert len(requests) == REQUESTS and all(len(request["response_timestamps"]) >= 8 for request in requests)


def test_perf_analyzer_on_openai(server, tmp_path):
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16,
            "temperature": 0, "stream": True}
    (tmp_path / "data.json").write_text(json.dumps({"data": [{"payload": [body]}]}))
    perf_analyzer("smollm2", f"http://127.0.0.1:{server.http}", "--service-kind", "openai", "--endpoint", "v1/chat/completions",
                  "--async", "--input-data", tmp_path / "data.json", "--profile-export-file", tmp_path / "out.json")
    requests = json.loads((tmp_path / "out.json").read_text())["experiments"][0]["requests"]
    assert len(requests) == REQUESTS
    for request in requests:
        texts = "".join(output["response"] for output in request["response_outputs"])
        assert "Paris" in texts and "data: [DONE]" in texts


@pytest.mark.parametrize("endpoint", ["chat", "completions", "embeddings"])
def test_aiperf(server, tmp_path, endpoint):
    # Of the tokenizer only the lengths of the made-up prompts depend; answers are counted by the server.
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "config.json"):
        (tokenizer / name).write_bytes((ROOT / "model_repository" / "minilm" / "1" / name).read_bytes())
    command = [HOME / "aiperf", "profile", "--model", "minilm" if endpoint == "embeddings" else "smollm2", "--url", server.url(),
               "--endpoint-type", endpoint, "--tokenizer", tokenizer, "--concurrency", "4", "--request-count", str(REQUESTS),
               "--isl", "64", "--ui", "none", "--artifact-dir", tmp_path / "out"]
    if endpoint != "embeddings":
        command += ["--streaming", "--use-server-token-count", "--osl", "16", "--extra-inputs", "ignore_eos:true"]
    ran = subprocess.run(command, text=True, capture_output=True, timeout=300, cwd=tmp_path)
    print(ran.stdout[-6000:])
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    found = json.loads((tmp_path / "out" / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == REQUESTS and found.get("error_summary", []) == []
    if endpoint != "embeddings":
        assert found["output_sequence_length"]["min"] == found["output_sequence_length"]["max"] == 16
        assert found["time_to_first_token"]["avg"] > 0
