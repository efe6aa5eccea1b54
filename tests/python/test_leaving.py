"""SIGTERM with --drain-delay: what balancers and clients see from the signal to the end."""
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import threading
import time

import hpack
import httpx
import hyperframe.frame as frames
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2
from test_lifecycle import ensemble, group, sums
from trireme_server import BINARY, Server, identity, write_model

BODY = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]})


@pytest.fixture
def repository(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    write_model(tmp_path, "slow", identity("slow", parameters={"execute_delay_ms": 1500}))
    return tmp_path


def ask(connection, model="m"):
    connection.request("POST", f"/v2/models/{model}/infer", BODY)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())["outputs"][0]["data"], answer.getheader("Connection")


def ready(server):
    return server.raw("GET", "/v2/health/ready")[0]


def check(*arguments):
    return subprocess.run([BINARY, "healthcheck", *arguments], capture_output=True, text=True, timeout=20)


def test_requests_are_taken_until_the_delay_is_over(repository):
    with Server(repository, "--drain-delay=4") as server:
        assert ready(server) == 200
        kept = http.client.HTTPConnection("127.0.0.1", server.http)
        assert ask(kept) == (200, [1.0], None)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        # Not ready, alive, and answering over old and new connections.
        assert (ready(server), server.raw("GET", "/v2/health/live")[0]) == (503, 200)
        assert server.raw("GET", "/v2/models/m/ready")[0] == 400
        assert ask(kept) == (200, [1.0], None)
        assert ask(http.client.HTTPConnection("127.0.0.1", server.http)) == (200, [1.0], None)
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            assert client.is_server_live() and not client.is_server_ready()
            tensor = grpcclient.InferInput("INPUT0", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
            assert client.infer("m", [tensor]).as_numpy("OUTPUT0") == 1
        # In the second half, answers end their connections.
        time.sleep(max(0, told + 2.3 - time.monotonic()))
        assert ask(kept) == (200, [1.0], "close")
        assert ask(http.client.HTTPConnection("127.0.0.1", server.http)) == (200, [1.0], "close")
        assert server.process.wait(20) == 0, server.output()
        assert 3.9 < time.monotonic() - told < 6


def test_what_runs_when_the_delay_is_over_is_finished(repository):
    with Server(repository, "--drain-delay=1") as server:
        answers = []

        def late(seconds):
            time.sleep(seconds)
            answers.append(ask(http.client.HTTPConnection("127.0.0.1", server.http), "slow")[:2])

        threads = [threading.Thread(target=late, args=(seconds,)) for seconds in (0, 0.4, 0.8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        told = time.monotonic()
        assert server.stop() == 0, server.output()
        for thread in threads:
            thread.join()
        assert answers == [(200, [1.0])] * 3
        # One after the other on the one instance: at most 4.5 s, and no longer than they take.
        assert time.monotonic() - told < 6


def test_an_idle_connection_is_served_once_more_when_the_server_ends(repository):
    """What is on its way when the end begins is answered, over HTTP/1 and HTTP/2."""
    with Server(repository) as server, httpx.Client(http1=False, http2=True, timeout=20) as two:
        one = http.client.HTTPConnection("127.0.0.1", server.http)
        assert ask(one)[0] == 200 and two.get(server.url("/v2")).status_code == 200
        holding = threading.Thread(target=lambda: ask(http.client.HTTPConnection("127.0.0.1", server.http), "slow"))
        holding.start()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert ask(one) == (200, [1.0], "close")
        assert server.process.wait(20) == 0, server.output()
        holding.join()


def test_who_comes_while_the_server_ends_is_told(repository):
    """Over new connections, as long as something runs; sequences that have begun are brought to their end."""
    write_model(repository, "steps", ensemble("steps", "m"))
    write_model(repository, "sums", sums("direct { }", group(1)))
    stopping = "Server is stopping, scheduler for model has stopped accepting new inference requests"
    with Server(repository, "--exit-timeout-secs=20") as server:
        def send(value, sequence, start=False, end=False):
            parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
            body = {"parameters": parameters,
                    "inputs": [{"name": "INPUT", "datatype": "INT32", "shape": [1, 1], "data": [value]}]}
            status, _, answer = server.raw("POST", "/v2/models/sums/infer", json.dumps(body).encode())
            answer = json.loads(answer)
            return status, answer["outputs"][0]["data"] if status == 200 else answer["error"]

        def refused(model):
            status, _, answer = server.raw("POST", f"/v2/models/{model}/infer", BODY.encode())
            return status, json.loads(answer)["error"]

        assert send(1, 1, start=True) == (200, [1])
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert refused("m") == (503, stopping)
        assert refused("steps") == (503, f"in ensemble 'steps', {stopping}")
        assert refused("nobody")[0] == 404
        assert server.raw("GET", "/v2/health/live")[0] == 200
        assert send(1, 2, start=True) == (503, stopping)
        assert send(1, 1, start=True) == (503, stopping), "begun anew it is a new one"
        assert send(2, 1) == (200, [3])
        assert send(3, 1, end=True) == (200, [6])
        # The last sequence was what the end waited for.
        assert server.process.wait(10) == 0, server.output()


def test_a_second_signal_ends_now(repository):
    with Server(repository, "--drain-delay=60") as server:
        server.process.send_signal(signal.SIGTERM)
        # What comes twice at once is one signal that a wrapper has passed on.
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert server.process.poll() is None and ready(server) == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 4, server.output()
        assert "a second signal" in server.output()


def test_a_person_at_the_terminal_does_not_wait(repository):
    with Server(repository, "--drain-delay=60") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 0, server.output()


def test_a_signal_while_models_load(tmp_path):
    write_model(tmp_path, "m", identity("m", parameters={"creation_delay_sec": 30}))
    with Server(tmp_path, wait=False) as server:
        time.sleep(1)
        assert server.stop(5) == 0, server.output()


def test_the_health_check(repository):
    with Server(repository, "--drain-delay=2") as server:
        url = ["--url", server.url()]
        assert check(*url).returncode == 0
        assert check(*url, "--live").returncode == 0
        assert check(*url, "--model", "m").returncode == 0
        unknown = check(*url, "--model", "nobody")
        assert unknown.returncode == 1 and "'nobody' is not ready (status 4" in unknown.stderr
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        no = check(*url)
        assert no.returncode == 1 and "the server is not ready (status 503" in no.stderr
        assert check(*url, "--live").returncode == 0
        assert server.process.wait(10) == 0
        gone = check(*url)
        assert gone.returncode == 1 and "cannot be reached" in gone.stderr
    assert check("--url", "https://x").returncode == 1
    assert check("--urll", "http://x").returncode == 2


def test_a_stream_of_grpc_that_is_open(repository):
    """What was asked on it is answered; it is then ended by the end of the server and holds nothing up."""
    with Server(repository) as server, contextlib.ExitStack() as held:
        client = held.enter_context(grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}"))
        answers = []
        client.start_stream(lambda result, error: answers.append((result, error)))
        tensor = grpcclient.InferInput("INPUT0", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
        client.async_stream_infer("slow", [tensor])
        time.sleep(0.3)
        assert server.stop() == 0, server.output()
        assert answers and answers[0][1] is None and answers[0][0].as_numpy("OUTPUT0") == 1


class Frames:
    """HTTP/2 spoken frame by frame, for what a client does once in ten thousand connections."""

    def __init__(self, server, port):
        self.port, self.left, self.stream = port, b"", -1
        self.socket = socket.create_connection(("127.0.0.1", getattr(server, port)), timeout=0.2)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(frames.SettingsFrame(0))

    def send(self, *some):
        # In one piece, so that the server reads them together.
        self.socket.sendall(b"".join(frame.serialize() for frame in some))

    def call(self, model):
        """The frames of one more call."""
        self.stream += 2
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "a")]
        if self.port == "grpc":
            headers += [(":path", "/inference.GRPCInferenceService/ModelInfer"), ("content-type", "application/grpc"), ("te", "trailers")]
            tensor = service_pb2.ModelInferRequest.InferInputTensor(name="INPUT0", datatype="FP32", shape=[1, 1])
            tensor.contents.fp32_contents.append(1)
            message = service_pb2.ModelInferRequest(model_name=model, inputs=[tensor]).SerializeToString()
            body = b"\0" + len(message).to_bytes(4, "big") + message
        else:
            headers.append((":path", f"/v2/models/{model}/infer"))
            body = BODY.encode()
        head = frames.HeadersFrame(self.stream, self.encoder.encode(headers), flags=["END_HEADERS"])
        return [head, frames.DataFrame(self.stream, body, flags=["END_STREAM"])]

    def frames(self):
        """What the server sends, until it closes; None whenever it sends nothing for a moment."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                yield None
                continue
            if not data:
                return
            self.left += data
            while len(self.left) >= 9:
                frame, length = frames.Frame.parse_frame_header(memoryview(self.left[:9]))
                if len(self.left) < 9 + length:
                    break
                frame.parse_body(memoryview(self.left[9:9 + length]))
                self.left = self.left[9 + length:]
                yield frame


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_call_that_crosses_the_goaway_harms_no_other(repository, port):
    """A client sends one more call before it has seen the end announced, and behind its answer to the ping that settles which
    call is the last: the late one is not served and may be sent elsewhere, the running ones are finished."""
    write_model(repository, "slower", identity("slower", parameters={"execute_delay_ms": 6000}))
    with Server(repository) as server:
        client = Frames(server, port)
        client.send(*client.call("slower"))
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        last, answers, ended, late = [], {}, set(), None
        for frame in client.frames():
            if frame is None:
                # Over HTTP the end is announced to who asks for more.
                if port == "http" and not last:
                    client.send(*client.call("m"))
                continue
            if isinstance(frame, frames.PingFrame) and "ACK" not in frame.flags:
                call = client.call("m")
                late = client.stream
                update = frames.WindowUpdateFrame(late, window_increment=1000)
                client.send(frames.PingFrame(0, frame.opaque_data, flags=["ACK"]), *call, update)
            elif isinstance(frame, frames.GoAwayFrame):
                last.append((frame.error_code, frame.last_stream_id))
            elif isinstance(frame, frames.HeadersFrame):
                answers.setdefault(frame.stream_id, {}).update(client.decoder.decode(frame.data))
            if "END_STREAM" in frame.flags:
                ended.add(frame.stream_id)
        assert late and last[0] == (0, 2**31 - 1) and set(last[1:]) == {(0, late - 2)}, last
        assert set(answers) == ended == set(range(1, late, 2))
        # Those that came while the server ended may have been told so.
        assert answers[1][":status"] == "200"
        assert port == "http" or answers[1]["grpc-status"] == "0"
        assert server.process.wait(30) == 0, server.output()
