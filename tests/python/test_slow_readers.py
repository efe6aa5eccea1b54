"""SIGTERM while clients are slow to read: each gets its whole answer; who waits for nothing holds nothing up."""
import contextlib
import queue
import socket
import threading
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from trireme_server import Server, identity, write_model

# Larger than what the system buffers on the way: the server itself has to hold the rest.
ELEMENTS = 6 << 20
ANSWER = np.arange(ELEMENTS, dtype=np.float32)
# An answer takes about seven seconds.
BYTES_PER_TURN, TURN_S = 170 << 10, 0.05


class SlowLink:
    """Passes on what clients send at once, and what they get slowly."""

    def __init__(self, port):
        self.port, self.received, self.slow = port, 0, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.socket()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
                server.connect(("127.0.0.1", self.port))
                threading.Thread(target=self.up, args=(client, server), daemon=True).start()
                threading.Thread(target=self.down, args=(server, client), daemon=True).start()

    def up(self, client, server):
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            return
        server.close()

    def down(self, server, client):
        with contextlib.suppress(OSError):
            while data := server.recv(BYTES_PER_TURN):
                self.received += len(data)
                client.sendall(data)
                if len(data) > 1024:
                    time.sleep(TURN_S * len(data) / BYTES_PER_TURN)
            client.shutdown(socket.SHUT_WR)
        server.close()


def over_http(version):
    def ask(address):
        head = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[%d],"parameters":{"binary_data_size":%d}}],' \
               b'"parameters":{"binary_data_output":true}}' % (ELEMENTS, 4 * ELEMENTS)
        headers = {"Inference-Header-Content-Length": str(len(head))}
        with httpx.Client(http1=version == 1, http2=version == 2, timeout=60) as client:
            answer = client.post(f"http://{address}/v2/models/large/infer", content=head + ANSWER.tobytes(), headers=headers)
            assert answer.status_code == 200 and answer.http_version == f"HTTP/{version if version == 2 else 1.1}"
            return np.frombuffer(answer.content[int(answer.headers["inference-header-content-length"]):], np.float32)

    return ask


def inputs():
    tensor = grpcclient.InferInput("INPUT0", [ELEMENTS], "FP32")
    tensor.set_data_from_numpy(ANSWER)
    return [tensor]


def over_grpc(address):
    with grpcclient.InferenceServerClient(address) as client:
        return client.infer("large", inputs()).as_numpy("OUTPUT0")


def over_a_stream(address):
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("large", inputs())
        result, error = answers.get(timeout=60)
        assert error is None, error
        return result.as_numpy("OUTPUT0")


CLIENTS = {"http/1": ("http", over_http(1)), "http/2": ("http", over_http(2)), "grpc": ("grpc", over_grpc), "stream": ("grpc", over_a_stream)}


@pytest.fixture
def server(tmp_path):
    write_model(tmp_path, "large", identity("large", batch=0))
    with Server(tmp_path) as server:
        yield server


class Asking(threading.Thread):
    def __init__(self, server, name):
        super().__init__(daemon=True)
        front, self.ask = CLIENTS[name]
        self.client, self.link = name, SlowLink(getattr(server, front))
        self.answer = self.error = self.at = None
        self.start()

    def run(self):
        try:
            self.answer = self.ask(self.link.address)
        except Exception as error:  # noqa: BLE001  told with the client's name below
            self.error = error
        self.at = time.monotonic()


def wait_for(what, true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def test_slow_readers_get_their_whole_answers(server):
    asking = [Asking(server, name) for name in CLIENTS]
    for one in asking:
        wait_for(f"{one.client}: no answer begins", lambda one=one: one.link.received > BYTES_PER_TURN or one.error)
    told = time.monotonic()
    code = server.stop(timeout=60)
    ended = time.monotonic()
    for one in asking:
        one.join(10)
        assert one.error is None, f"{one.client}: {one.error}\n{server.output()}"
        assert np.array_equal(one.answer, ANSWER), one.client
    assert code == 0, server.output()
    last = max(one.at for one in asking)
    # Longer than any grace for which a server might wait blindly, and not much longer than its last reader.
    assert last - told > 5 and ended - last < 2, (last - told, ended - last)


def test_a_reader_who_never_reads_holds_the_end_up_no_longer_than_allowed(tmp_path):
    write_model(tmp_path, "large", identity("large", batch=0))
    with Server(tmp_path, "--exit-timeout-secs=2") as server:
        with socket.create_connection(("127.0.0.1", server.http)) as raw:
            body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[%d],"parameters":{"binary_data_size":%d}}]}' % (ELEMENTS, 4 * ELEMENTS)
            raw.sendall(b"POST /v2/models/large/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
                        % (len(body), len(body) + 4 * ELEMENTS) + body + ANSWER.tobytes())
            assert raw.recv(16).startswith(b"HTTP/1.1 200")
            start = time.monotonic()
            assert server.stop() == 3
            assert 1.5 < time.monotonic() - start < 6
            assert "answers are lost that their clients have not read" in server.output()


def test_a_reader_who_goes_away_holds_nothing_up(server):
    one = Asking(server, "http/1")
    wait_for("no answer begins", lambda: one.link.received > BYTES_PER_TURN)
    with socket.create_connection(("127.0.0.1", server.http)) as raw:
        body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[%d],"parameters":{"binary_data_size":%d}}]}' % (ELEMENTS, 4 * ELEMENTS)
        raw.sendall(b"POST /v2/models/large/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
                    % (len(body), len(body) + 4 * ELEMENTS) + body + ANSWER.tobytes())
        assert raw.recv(16).startswith(b"HTTP/1.1 200")
        server.process.terminate()
    assert server.stop(timeout=60) == 0
    one.join(10)
    assert np.array_equal(one.answer, ANSWER)


def test_nobody_who_waits_for_nothing_holds_the_end_up(server):
    with contextlib.ExitStack() as stack:
        keepalive = stack.enter_context(httpx.Client())
        assert keepalive.get(server.url("/v2/health/ready")).status_code == 200
        http2 = stack.enter_context(httpx.Client(http1=False, http2=True))
        assert http2.get(server.url("/v2/health/ready")).status_code == 200
        silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.http)))
        half = stack.enter_context(socket.create_connection(("127.0.0.1", server.http)))
        half.sendall(b"POST /v2/models/large/infer HTTP/1.1\r\nHost: x\r\n")
        sending = stack.enter_context(socket.create_connection(("127.0.0.1", server.http)))
        sending.sendall(b"POST /v2/models/large/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        grpc = stack.enter_context(grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}"))
        answers = queue.Queue()
        grpc.start_stream(lambda result, error: answers.put((result, error)))
        small = grpcclient.InferInput("INPUT0", [1], "FP32")
        small.set_data_from_numpy(ANSWER[:1])
        grpc.async_stream_infer("large", [small])
        assert answers.get(timeout=30)[1] is None
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 2, server.output()
        silent.close()
