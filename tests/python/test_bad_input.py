"""Hostile and broken input: a clear error with the right status, nothing lost, and the server goes on."""
import contextlib
import gzip
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2
from trireme_server import BACKENDS, BINARY, Server, identity, write_model


@pytest.fixture(autouse=True)
def the_server_goes_on(request):
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").alive()


def post(server, body, model="identity", headers=None, path=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = server.raw("POST", path or f"/v2/models/{model}/infer", data, headers)
    return status, json.loads(answer)["error"] if answer else ""


def fp32(shape, **fields):
    return {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": shape, **fields}]}


@pytest.mark.parametrize("body, says", [
    (fp32([1, 3], data=[1.0, 2.0]), "INPUT0"),
    (fp32([1, 1 << 62, 4], data=[1.0]), ""),
    (fp32([1 << 40, 1 << 40], data=[1.0]), ""),
    (fp32([1, -1], data=[1.0]), ""),
    (fp32([1, 1], data=["text"]), "INPUT0"),
    (fp32([65, 1], data=[1.0] * 65), "batch-size must be <= 64"),
    (fp32([1], data=[1.0]), "unexpected shape"),
    (fp32([1, 1], data=[1.0], parameters={"binary_data_size": 4}), "INPUT0"),
    (fp32([1, 1]), "INPUT0"),
    ({"inputs": [{"name": "NOPE", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}, "NOPE"),
    ({"inputs": [{"name": "INPUT0", "datatype": "FP33", "shape": [1, 1], "data": [1.0]}]}, "FP33"),
    ({"inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1, 1], "data": [1]}]}, "INT32"),
    ({"inputs": []}, "INPUT0"),
    ({**fp32([1, 1], data=[1.0]), "outputs": [{"name": "NOPE"}]}, "NOPE"),
    ({**fp32([1, 1], data=[1.0]), "outputs": [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]}, "OUTPUT0"),
    ({**fp32([1, 1], data=[1.0]), "parameters": {"triton_secret": 1}}, "triton_"),
    (b"{", ""), (b"", ""), (b"[]", ""), (b"\xff\xfe", ""), (b'{"inputs": 3}', ""),
    (b'{"inputs":' + b"[" * 2000 + b"]" * 2000 + b"}", ""),
])
def test_a_bad_request_is_a_400_that_says_why(server, body, says):
    status, error = post(server, body)
    assert status == 400, (status, error)
    assert error and says in error


def test_json_depth(server):
    deep = 200
    nested = b"[" * deep + b"1.0" + b"]" * deep
    body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":' + nested + b"}]}"
    assert post(server, body)[0] == 400


@pytest.mark.parametrize("length", ["999999", "-1", "x", "18446744073709551616", "7"])
def test_a_header_length_that_does_not_fit(server, length):
    body = json.dumps(fp32([1, 1], parameters={"binary_data_size": 4})).encode() + b"\0" * 4
    status, error = post(server, body, headers={"Inference-Header-Content-Length": length})
    assert status == 400 and error


def test_left_over_bytes(server):
    header = json.dumps(fp32([1, 1], parameters={"binary_data_size": 4})).encode()
    status, error = post(server, header + b"\0" * 8, headers={"Inference-Header-Content-Length": str(len(header))})
    assert status == 400 and "unexpected additional input data" in error


@pytest.mark.parametrize("content", [struct.pack("<I", 100) + b"ab", struct.pack("<I", 2) + b"abc", b"\1\2", b""])
def test_broken_bytes_framing(server, content):
    header = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1],
                                     "parameters": {"binary_data_size": len(content)}}]}).encode()
    status, error = post(server, header + content, "identity_bytes", {"Inference-Header-Content-Length": str(len(header))})
    assert status == 400 and error


def test_a_body_over_the_limit(small_repository):
    with Server(small_repository, "--http-max-input-size", "100000") as server:
        array = np.zeros((1, 50000), np.float32).tobytes()
        header = json.dumps(fp32([1, 50000], parameters={"binary_data_size": len(array)})).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        status, error = post(server, header + array, headers=headers)
        assert status in (400, 413) and "100000" in error
        # the same size only after inflation
        packed = gzip.compress(header + array)
        status, error = post(server, packed, headers={**headers, "Content-Encoding": "gzip"})
        assert status in (400, 413) and error
        # and without a length up front
        with socket.create_connection(("127.0.0.1", server.http)) as raw:
            raw.sendall(b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(200):
                    raw.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
            except OSError:
                pass
            raw.settimeout(10)
            try:
                answer = raw.recv(4096)
            except OSError:
                answer = b""
            assert answer == b"" or answer.split()[1] in (b"400", b"413")
        server.alive()


@pytest.fixture(scope="module")
def narrow(small_repository):
    """A server that takes small bodies only."""
    with Server(small_repository, "--http-max-input-size", "100000") as server:
        yield server


HEAD = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\n"


def said(port, pieces, timeout=8):
    """What the server says to what is sent, nothing if it closes the connection; silence is an error."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as raw:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                raw.sendall(piece)
        with contextlib.suppress(ConnectionError):
            return raw.recv(4096)
    return b""


@pytest.mark.parametrize("more", [b"Content-Length: 10000000000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + b"a" * 110000])
def test_a_refusal_comes_before_the_rest_of_the_body(narrow, more):
    """The rest never comes. The connection is kept meanwhile, since to close it might lose the answer."""
    start = time.monotonic()
    answer = said(narrow.http, [HEAD + more])
    assert answer.startswith(b"HTTP/1.1 400 ") and b"exceeds the maximum allowed value of 100000 bytes" in answer, answer
    assert time.monotonic() - start < 5
    narrow.alive()


@pytest.mark.parametrize("pieces, statuses", [
    # Headers: many, long, and one without an end.
    ([HEAD] + [b"a%d: b\r\n" % n for n in range(101)] + [b"\r\n"], [b"431"]),
    ([HEAD] + [b"a: " + b"b" * 10000 + b"\r\n"] * 60, [b"431"]),
    ([HEAD + b"a: "] + [b"b" * 65536] * 1000, [b"431"]),
    ([b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n"], [b"414"]),
    # Chunks: of a length beyond all numbers, of more than there may be, with extensions and trailers without end.
    ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 17 + b"\r\n"], [b"400"]),
    ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n7FFFFFFFFFFFFFFF\r\n"] + [b"a" * 65536] * 500, [b"400"]),
    ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;"] + [b"a" * 65536] * 1000, [b"400"]),
    ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"] + [b"a: " + b"b" * 10000 + b"\r\n"] * 6000, [b"400"]),
    ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"] + [b"1\r\na\r\n" * 1000] * 70, [b"400"]),
])
def test_floods_end_soon_and_cost_no_memory(narrow, pieces, statuses):
    def resident():
        return int(re.search(r"VmRSS:\s+(\d+) kB", open(f"/proc/{narrow.process.pid}/status").read())[1]) / 1024

    # What the C library keeps for a thread that meets its first flood is not what is looked for.
    answers = [said(narrow.http, pieces)]
    before = resident()
    answers += [said(narrow.http, pieces) for _ in range(3)]
    # Who is still sending when the connection is closed may not get to see the answer.
    assert all(answer == b"" or answer.split()[1] in statuses for answer in answers), answers
    assert any(answers) or sum(map(len, pieces)) > 16 << 10, "little is sent, and the server says nothing"
    narrow.alive()
    assert resident() - before < 16


def test_broken_compression(server):
    status, error = post(server, b"this is not gzip", headers={"Content-Encoding": "gzip"})
    assert status == 400 and error
    status, error = post(server, b"{}", headers={"Content-Encoding": "brotli"})
    assert status >= 400 and error


@pytest.mark.parametrize("path, status, says", [
    ("/v2/models/nowhere/infer", 404, "nowhere"),
    ("/v2/models/identity/versions/9/infer", 404, "version 9 is not found"),
    ("/v2/models/identity/versions/x/infer", 400, ""),
    ("/v2/nothing", 404, "Not Found"),
])
def test_unknown_names(server, path, status, says):
    got, error = post(server, fp32([1, 1], data=[1.0]), path=path)
    assert got in ((status, 404) if status == 400 else (status,)) and says in error


def test_wrong_method(server):
    status, _, body = server.raw("GET", "/v2/models/identity/infer")
    assert status == 405 and json.loads(body)["error"] == "Method Not Allowed"


def test_unknown_names_over_grpc(server):
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        one = grpcclient.InferInput("INPUT0", [1, 1], "FP32")
        one.set_data_from_numpy(np.zeros((1, 1), np.float32))
        for model, version in (("nowhere", ""), ("identity", "9")):
            with pytest.raises(grpcclient.InferenceServerException) as error:
                client.infer(model, [one], model_version=version)
            assert error.value.status() == "StatusCode.NOT_FOUND"


def pending(server, model):
    _, _, body = server.raw("GET", f"/v2/models/{model}/stats")
    return json.loads(body)["model_stats"][0]["inference_stats"]


def test_a_client_that_goes_away_cancels_its_request(server):
    body = json.dumps(fp32([1, 1], data=[1.0])).encode()
    head = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    before = pending(server, "slow")["success"]["count"]
    connections = []
    for _ in range(20):
        raw = socket.create_connection(("127.0.0.1", server.http))
        raw.sendall(head + body)
        connections.append(raw)
    for raw in connections:
        raw.close()
    started = time.monotonic()
    status, error = 0, ""
    status, _, _ = server.raw("POST", "/v2/models/slow/infer", body)
    took = time.monotonic() - started
    # Twenty requests of 300 ms each would take six seconds; cancelled ones take no time at all.
    assert status == 200 and took < 4, took
    assert pending(server, "slow")["success"]["count"] - before < 20


def test_a_stream_reader_that_goes_away(server):
    body = json.dumps({"IN": [1] * 1000, "DELAY": [20] * 1000, "WAIT": 0}).encode()
    with socket.create_connection(("127.0.0.1", server.http)) as raw:
        raw.sendall(f"POST /v2/models/repeat_int32/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        raw.settimeout(10)
        received = b""
        while b"data:" not in received:
            received += raw.recv(4096)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        _, _, stats = server.raw("GET", "/v2/models/repeat_int32/stats")
        responses = json.loads(stats)["model_stats"][0].get("response_stats", {})
        if any(one["cancel"]["count"] for one in responses.values()):
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the stream was never cancelled")


@pytest.mark.parametrize("flags, says", [
    (["--model-repositry", "/tmp"], "--model-repository"),
    (["--model-repository", "/nonexistent-path"], "/nonexistent-path"),
    (["--model-repository", "{empty}"], "{empty}"),
    (["--model-repository", "{model}"], "parent"),
    (["--model-repository", "{good}", "--http-port", "{used}"], "{used}"),
    (["--model-repository", "{good}", "--load-model", "m"], "explicit"),
    (["--model-repository", "{good}", "--http-port", "hello"], "http-port"),
    (["--model-repository", "{good}", "--grpc-use-ssl", "true"], "--grpc-use-ssl"),
    ([], "--model-repository"),
])
def test_the_command_line(tmp_path, flags, says):
    (tmp_path / "empty").mkdir()
    model = write_model(tmp_path / "good", "m", identity("m"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = {"empty": tmp_path / "empty", "model": model, "good": tmp_path / "good", "used": taken.getsockname()[1]}
        command = [str(BINARY), "serve", "--backend-directory", str(BACKENDS), "--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
        if "--http-port" not in flags:
            command += ["--http-port=0"]
        command += ["--grpc-port=0", "--metrics-port=0"] + [flag.format(**names) for flag in flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    output = done.stdout + done.stderr
    assert done.returncode not in (0, 101), output
    assert says.format(**names) in output, output
    assert "panicked" not in output


@pytest.mark.parametrize("config, says", [
    ('name: "m"\nbackend: "identity"\nmax_batch_sizee: 4\n', "config.pbtxt:3:1"),
    ('name: "m"\nbackend: "identity"\ninput [ { name: "A" data_type: TYPE_FP33 dims: [1] } ]\n', "config.pbtxt:3:"),
    ('name: "other"\nbackend: "identity"\n', "m"),
    ('name: "m"\nbackend: "identty"\n', "identity"),
    (identity("m", extra="instance_group [ { kind: KIND_GPU } ]\n"), "GPU"),
    (identity("m", extra="dynamic_batching { preferred_batch_size: [ 100 ] }\n"), "config.pbtxt:"),
    (identity("m", batch=-1), "config.pbtxt:"),
    ('name: "m"\nbackend: "cpu"\n', ""),
])
def test_a_bad_configuration_points_at_its_line(tmp_path, config, says):
    write_model(tmp_path, "m", config)
    write_model(tmp_path, "good", identity("good"))
    with Server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        lines = {line["name"]: line for line in json.loads(body)}
        assert lines["good"]["state"] == "READY"
        assert lines["m"].get("state") == "UNAVAILABLE" and says in lines["m"]["reason"], lines
        server.alive()
    failed = subprocess.run([str(BINARY), "serve", "--model-repository", str(tmp_path), "--backend-directory", str(BACKENDS),
                             "--http-port=0", "--grpc-port=0", "--metrics-port=0"], capture_output=True, text=True, timeout=30)
    assert failed.returncode == 1 and says in failed.stdout + failed.stderr
    checked = subprocess.run([str(BINARY), "check", str(tmp_path), "--backend-directory", str(BACKENDS)],
                             capture_output=True, text=True, timeout=30)
    if says.startswith("config.pbtxt"):
        assert checked.returncode == 1 and says in checked.stdout + checked.stderr


def hostile(fault):
    return identity("m", extra="").replace('"identity"', '"hostile"', 1) + \
        f'parameters {{ key: "fault" value {{ string_value: "{fault}" }} }}\n'


@pytest.mark.parametrize("fault", ["panic_execute", "drop", "twice", "wrong_shape"])
def test_a_backend_that_misbehaves_in_execute(tmp_path, fault):
    write_model(tmp_path, "m", hostile(fault))
    write_model(tmp_path, "good", identity("good"))
    with Server(tmp_path) as server:
        for _ in range(3):
            status, error = post(server, fp32([1, 1], data=[1.0]), "m") if fault != "twice" else (500, "x")
            assert status == 500 and error
            status, _, _ = server.raw("POST", "/v2/models/good/infer", json.dumps(fp32([1, 1], data=[1.0])).encode())
            assert status == 200
        server.alive()


def test_a_backend_that_panics_in_load(tmp_path):
    write_model(tmp_path, "m", hostile("panic_load"))
    write_model(tmp_path, "good", identity("good"))
    with Server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        lines = {line["name"]: line for line in json.loads(body)}
        assert lines["m"]["state"] == "UNAVAILABLE" and "panic" in lines["m"]["reason"]
        server.alive()


@pytest.mark.parametrize("content, says", [(b"not a library", ""), (None, "probe")])
def test_a_library_that_is_no_backend(tmp_path, content, says):
    repository = tmp_path / "repository"
    directory = write_model(repository, "m", identity("m").replace('"identity"', '"broken"', 1))
    library = directory / "libtrireme_broken.so"
    if content is None:
        (tmp_path / "empty.c").write_text("int nothing;\n")
        subprocess.run(["cc", "-shared", "-o", str(library), str(tmp_path / "empty.c")], check=True)
    else:
        library.write_bytes(content)
    with Server(repository, "--exit-on-error=false", "--strict-readiness=false", "--allow-model-backends") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        line = json.loads(body)[0]
        assert line["state"] == "UNAVAILABLE" and "broken" in line["reason"] and says in line["reason"], line
        assert len(line["reason"]) < 500
    # without the flag the library is not even looked at
    with Server(repository, "--exit-on-error=false", "--strict-readiness=false") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        assert "--allow-model-backends" in json.loads(body)[0]["reason"]


def test_truncated_weights(tmp_path):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "trireme" / "models"
    gguf = cache / "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    with gguf.open("rb") as file:
        half = file.read(gguf.stat().st_size // 2)
    config = (pathlib.Path(__file__).parents[2] / "model_repository" / "smollm2" / "config.pbtxt").read_text()
    write_model(tmp_path, "smollm2", config, files=[("1/model.gguf", half)])
    with Server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        line = json.loads(body)[0]
        assert line["state"] == "UNAVAILABLE" and "model.gguf" in line["reason"], line
        server_status, _, _ = server.raw("GET", "/v2/health/live")
        assert server_status == 200


def test_a_second_signal_and_a_drain(small_repository):
    with Server(small_repository) as server:
        body = json.dumps(fp32([1, 1], data=[1.0])).encode()
        raw = socket.create_connection(("127.0.0.1", server.http))
        raw.sendall(f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.1)
        assert server.stop() == 0, server.output()
        answer = raw.recv(65536)
        assert b" 200 " in answer.split(b"\r\n")[0], answer


def test_open_connections_do_not_hold_up_the_end(tmp_path):
    """A stream with nothing on it, half a request, a silent connection: nothing runs, so the end comes at once."""
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path) as server, contextlib.ExitStack() as held:
        client = held.enter_context(grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}"))
        client.start_stream(lambda result, error: None)
        for port, sent in (
            (server.http, b"GET /v2 HT"),
            (server.http, b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"),
            (server.grpc, b""),
            (server.metrics, b"GET /metrics"),
        ):
            held.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(sent)
        assert server.stop(10) == 0, server.output()


@pytest.mark.parametrize("timeout, status", [("100m", "4"), ("1X", "3"), ("-1S", "3"), ("20S", None)])
def test_the_deadline_of_a_grpc_call(tmp_path, timeout, status):
    """Sent as frames: a client of grpc would end the call by itself."""
    write_model(tmp_path, "m", identity("m", parameters={"execute_delay_ms": 1000}))
    request = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[bytes(4)])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 1])
    message = request.SerializeToString()
    headers = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": timeout}
    with Server(tmp_path) as server, httpx.Client(http1=False, http2=True, timeout=30) as client:
        url = f"http://127.0.0.1:{server.grpc}/inference.GRPCInferenceService/ModelInfer"
        answer = client.post(url, content=b"\0" + len(message).to_bytes(4, "big") + message, headers=headers)
        # An answer with a message has its status in trailers, which this client does not show.
        assert answer.headers.get("grpc-status") == status, answer.headers
        assert (status is None) == (len(answer.content) > 5)
