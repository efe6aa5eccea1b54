"""What deployments rely on: flags as they are given to tritonserver, restricted calls, forwarded headers, compression."""
import contextlib
import gzip
import http.client
import json
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from trireme_server import BACKENDS, BINARY, Server, identity, io, write_model

MODULES = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("deployment")
    write_model(repository, "identity", identity())
    return repository


def infer(client, module, array, **kwargs):
    tensor = module.InferInput("INPUT0", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return client.infer("identity", [tensor], **kwargs)


def start_and_end(repository, *flags, name=None):
    """Runs a command line that cannot start; its exit code and what it said."""
    command = [str(name or BINARY)] + ([] if name else ["serve"])
    command += ["--model-repository", str(repository), "--backend-directory", str(BACKENDS), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


# Flags

def test_the_flags_of_upstream_charts_start_the_server(repository):
    flags = ["--strict-model-config=False", "--log-verbose=0", "--allow-gpu-metrics=True", "--grpc-infer-thread-count=4",
             "--pinned-memory-pool-byte-size=0", "--rate-limit=off", "--cuda-memory-pool-byte-size=0:0",
             "--allow-sagemaker=false", "--allow-vertex-ai=false", "--grpc-use-ssl=0", "--log-file=", "--metrics-interval-ms=2000"]
    with Server(repository, *flags) as server:
        output = server.output()
        for warned in ("grpc-infer-thread-count", "metrics-interval-ms"):
            assert output.count(f"--{warned} has no effect") == 1, output
        for quiet in ("strict-model-config", "allow-gpu-metrics", "rate-limit ", "allow-sagemaker", "grpc-use-ssl"):
            assert f"--{quiet}" not in output, output
        server.alive()


def test_the_poll_mode_of_upstream_charts(repository):
    with Server(repository, "--model-control-mode=poll", "--repository-poll-secs=5") as server:
        assert "no effect" not in server.output()
        server.alive()


@pytest.mark.parametrize("flag", ["--model-namespacing=true", "--allow-sagemaker=true", "--allow-vertex-ai=on"])
def test_what_a_deployment_relies_on_is_refused(repository, flag):
    code, output = start_and_end(repository, flag)
    assert code == 1 and f"{flag.split('=')[0]} cannot be given: " in output, output


@pytest.mark.parametrize("scheme", ["gs", "as"])
def test_a_repository_elsewhere_is_refused(scheme):
    code, output = start_and_end(f"{scheme}://bucket/models")
    assert code == 1 and "is in an object store that cannot be read here" in output, output


def test_a_flag_that_is_none(repository, tmp_path):
    code, output = start_and_end(repository, "--no-such-flag")
    assert code == 2 and "--no-such-flag" in output and "Usage" in output
    name = tmp_path / "tritonserver"
    name.symlink_to(BINARY)
    assert start_and_end(repository, "--no-such-flag", name=name)[0] == 1
    code, output = start_and_end(repository, "--grpc-infer-thread-count=1")
    assert code == 2 and "from 2 to 128" in output


def test_two_servers_share_a_port(repository):
    with Server(repository, "--reuse-http-port=true", "--reuse-grpc-port=1") as first:
        second = Server(repository, "--reuse-http-port=true", "--reuse-grpc-port=1", f"--http-port={first.http}",
                        f"--grpc-port={first.grpc}", wait=False)
        with second:
            deadline = time.monotonic() + 30
            while "gRPC " not in second.output() and time.monotonic() < deadline:
                assert second.process.poll() is None, second.output()
                time.sleep(0.02)
            assert f":{first.http}" in second.output()
    code, output = 0, ""
    with Server(repository) as first:
        code, output = start_and_end(repository, f"--http-port={first.http}")
    assert code == 1 and "--http-port" in output


def test_an_old_connection_ends_and_the_client_makes_a_new_one(repository):
    with Server(repository, "--grpc-max-connection-age=200", "--grpc-max-connection-age-grace=1000") as server:
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            for _ in range(8):
                assert client.is_server_ready()
                time.sleep(0.1)


# Restricted calls

SECRETS = ["--http-restricted-api=health,metadata,inference:admin-key=secret", "--http-restricted-api=shared-memory,"
           "model-config,model-repository,statistics,trace,logging:Other=word",
           "--grpc-restricted-protocol=health,metadata,inference:admin-key=secret",
           "--grpc-restricted-protocol=shared-memory,model-config,model-repository,statistics,trace,logging:other=word"]

HTTP_CALLS = {
    "admin-key": ["GET /", "GET /health", "GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/identity",
                  "GET /v2/models/identity/ready", "GET /v2/models/identity/versions/1", "POST /v2/models/identity/infer",
                  "POST /v2/models/identity/versions/1/infer", "POST /v2/models/identity/generate",
                  "POST /v2/models/identity/generate_stream", "POST /v2/models/%69dentity/infer"],
    "Other": ["GET /v2/models/identity/config", "GET /v2/models/identity/stats", "GET /v2/models/stats",
              "POST /v2/repository/index", "POST /v2/repository/models/identity/load",
              "POST /v2/repository/models/nowhere/unload", "GET /v2/systemsharedmemory/status",
              "POST /v2/systemsharedmemory/region/x/register", "GET /v2/cudasharedmemory/status", "GET /v2/trace/setting",
              "GET /v2/models/identity/trace/setting", "GET /v2/logging", "POST /v2/logging"],
}


@pytest.fixture(scope="module")
def restricted(repository):
    with Server(repository, *SECRETS, "--model-control-mode=explicit", "--load-model=identity") as server:
        yield server


@pytest.mark.parametrize("key, call", [(key, call) for key, calls in HTTP_CALLS.items() for call in calls])
def test_http_calls_need_their_header(restricted, key, call):
    method, path = call.split()
    secret = {"admin-key": "secret", "Other": "word"}[key]
    body = b"x" * 70000 if method == "POST" else None
    for headers in ({}, {key: "wrong"}, {key: secret + "2"}, {key: ""}):
        status, _, answer = restricted.raw(method, path, body, headers)
        assert status == 403
        assert json.loads(answer)["error"] == f"This API is restricted, expecting header '{key}'"
    if path == "/":
        # The page shows what both keys open.
        assert restricted.raw(method, path, None, {"admin-key": "secret"})[0] == 403
        assert restricted.raw(method, path, None, {"admin-key": "secret", "other": "word"})[0] == 200
    else:
        assert restricted.raw(method, path, None if body is None else b"", {key.upper(): secret})[0] != 403


def test_http_clients_with_the_header(restricted):
    with httpclient.InferenceServerClient(f"127.0.0.1:{restricted.http}") as client:
        array = np.ones((1, 4), np.float32)
        with pytest.raises(Exception, match="This API is restricted, expecting header 'admin-key'"):
            infer(client, httpclient, array)
        result = infer(client, httpclient, array, headers={"admin-key": "secret"})
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_metrics_are_not_restricted(restricted):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{restricted.metrics}/metrics") as answer:
        assert b"nv_inference_request_success" in answer.read()


GRPC_CALLS = {
    "admin-key": ["is_server_live", "is_server_ready", ("is_model_ready", "identity"), "get_server_metadata",
                  ("get_model_metadata", "identity")],
    "other": [("get_model_config", "identity"), "get_inference_statistics", "get_model_repository_index",
              ("load_model", "identity"), "get_system_shared_memory_status", "get_cuda_shared_memory_status",
              "get_log_settings", "get_trace_settings"],
}


@pytest.mark.parametrize("key, call", [(key, call) for key, calls in GRPC_CALLS.items() for call in calls])
def test_grpc_calls_need_their_metadata(restricted, key, call):
    name, *arguments = (call,) if isinstance(call, str) else call
    secret = {"admin-key": "secret", "other": "word"}[key]
    header = f"triton-grpc-protocol-{key}"
    expected = f"This protocol is restricted, expecting header '{header}'"
    with grpcclient.InferenceServerClient(f"127.0.0.1:{restricted.grpc}") as client:
        for headers in ({}, {header: "wrong"}, {key: secret}):
            with pytest.raises(Exception, match=expected) as refused:
                getattr(client, name)(*arguments, headers=headers)
            assert "UNAVAILABLE" in str(refused.value.status())
        if name != "get_trace_settings":
            getattr(client, name)(*arguments, headers={header: secret})


def test_grpc_inference_needs_its_metadata(restricted):
    import queue
    header = {"triton-grpc-protocol-admin-key": "secret"}
    array = np.ones((1, 4), np.float32)
    with grpcclient.InferenceServerClient(f"127.0.0.1:{restricted.grpc}") as client:
        for compression in (None, "gzip"):
            with pytest.raises(Exception, match="This protocol is restricted"):
                infer(client, grpcclient, array, compression_algorithm=compression)
            infer(client, grpcclient, array, headers=header, compression_algorithm=compression)
        for headers in (None, header):
            answers = queue.Queue()
            tensor = grpcclient.InferInput("INPUT0", [1, 4], "FP32")
            tensor.set_data_from_numpy(array)
            client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
            # Refused before the first request, the stream may be over by now.
            with contextlib.suppress(Exception):
                client.async_stream_infer("identity", [tensor])
            result, error = answers.get(timeout=30)
            client.stop_stream()
            assert (result is None) == (headers is None), error
            if headers is None:
                assert "This protocol is restricted" in str(error)


def test_the_health_service_is_restricted_with_the_rest(restricted):
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(f"127.0.0.1:{restricted.grpc}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as refused:
            check(b"")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert check(b"", metadata=[("triton-grpc-protocol-admin-key", "secret")]) == b"\x08\x01"


@pytest.mark.parametrize("option, says", [
    ("healthy:a=b", "unknown restricted api 'healthy'"),
    ("health,health:a=b", "restricted api 'health' can not be specified in multiple config groups"),
    ("health", "API[,API"),
])
def test_a_restriction_that_is_none(repository, option, says):
    code, output = start_and_end(repository, f"--http-restricted-api={option}")
    assert code in (1, 2) and says in output, output


# Forwarded headers

@pytest.fixture(scope="module")
def forwarding(repository):
    patterns = ["--http-header-forward-pattern=^(X-Tenant|timeout)", "--grpc-header-forward-pattern=(x-tenant|priority)"]
    with Server(repository, *patterns) as server:
        yield server


@pytest.mark.parametrize("protocol, reserved", [("http", "timeout"), ("grpc", "priority")])
def test_headers_that_match_are_forwarded(forwarding, protocol, reserved):
    module = MODULES[protocol]
    array = np.ones((1, 4), np.float32)
    with module.InferenceServerClient(f"127.0.0.1:{getattr(forwarding, protocol)}") as client:
        result = infer(client, module, array, headers={"x-tenant": "a", "other": "b"})
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
        text = f"Header '{reserved}' is reserved for Triton usage and cannot be forwarded."
        with pytest.raises(Exception, match=text):
            infer(client, module, array, headers={reserved: "1"})


def test_blanks_behind_a_value_reach_the_model(tmp_path):
    """As upstream's do. A model in Python tells what it was given."""
    script = b"""import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([r.parameters()], dtype=object))]) for r in requests]
"""
    config = 'name: "told"\nbackend: "python"\nmax_batch_size: 0\n' + io("input", "IN", "INT32", "1") + io("output", "OUT", "STRING", "1")
    write_model(tmp_path, "told", config, files=[("1/model.py", script)])
    tensor = {"name": "IN", "shape": [1], "datatype": "INT32", "data": [1]}
    body = json.dumps({"inputs": [tensor]}).encode()
    flags = ["--http-header-forward-pattern=^x-", f"--backend-config=python,interpreter={sys.executable}"]
    with Server(tmp_path, *flags) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=30)
        for value in ("a", "a b ", "  a \t", "", "a"):
            connection.request("POST", "/v2/models/told/infer", body, {"X-Tenant": value, "Other": "b "})
            answer = json.loads(connection.getresponse().read())
            assert json.loads(answer["outputs"][0]["data"][0]) == {"x-tenant": value.lstrip()}, value


def test_headers_of_a_stream_are_forwarded(forwarding):
    import queue
    answers = queue.Queue()
    tensor = grpcclient.InferInput("INPUT0", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
    with grpcclient.InferenceServerClient(f"127.0.0.1:{forwarding.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers={"priority": "1"})
        client.async_stream_infer("identity", [tensor])
        assert "reserved for Triton usage" in str(answers.get(timeout=30)[1])
        client.stop_stream()


def test_generate_does_not_forward(forwarding):
    body = json.dumps({"INPUT0": [1.0]}).encode()
    status, _, answer = forwarding.raw("POST", "/v2/models/identity/generate", body, {"timeout": "5"})
    assert status == 200, answer


# Compression

@pytest.mark.parametrize("level", ["none", "low", "high"])
@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_grpc_compression(repository, level, algorithm):
    array = np.zeros((1, 100_000), np.float32)
    with Server(repository, f"--grpc-infer-response-compression-level={level}") as server:
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            result = infer(client, grpcclient, array, compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_a_grpc_message_is_inflated_up_to_the_limit_of_bodies(repository):
    with Server(repository, "--http-max-input-size=1000000") as server:
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            for algorithm in ("gzip", "deflate"):
                infer(client, grpcclient, np.zeros((1, 200_000), np.float32), compression_algorithm=algorithm)
                with pytest.raises(Exception, match="size limit, of 1000000 bytes"):
                    infer(client, grpcclient, np.zeros((1, 300_000), np.float32), compression_algorithm=algorithm)
            infer(client, grpcclient, np.zeros((1, 300_000), np.float32))
        server.alive()


@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_http_answers_are_compressed_when_asked_for(repository, encoding, pack):
    array = np.zeros((1, 10_000), np.float32).tobytes()
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 10_000], "parameters": {"binary_data_size": len(array)}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Encoding": encoding, "Accept-Encoding": encoding}
    with Server(repository) as server:
        status, answered, body = server.raw("POST", "/v2/models/identity/infer", pack(header + array), headers)
        answered = {name.lower(): value for name, value in answered.items()}
        assert status == 200 and answered["content-encoding"] == encoding and len(body) < 2000
        plain = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
        assert plain[int(answered["inference-header-content-length"]):] == array
        # A bomb is stopped at the limit, and what is no deflate at all is refused.
        status, _, answer = server.raw("POST", "/v2/models/identity/infer", pack(bytes(200 << 20)), headers)
        assert status == 400 and b"exceeds the maximum allowed value" in answer
        status, _, answer = server.raw("POST", "/v2/models/identity/infer", pack(header + array)[:-20], headers)
        assert status == 400, answer
        server.alive()
