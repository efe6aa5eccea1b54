"""A device that is lost to the process: not ready at once, what others can answer is answered, and an exit code of its own."""
import http.client
import json
import signal
import subprocess
import threading
import time

from test_batch import HOSTILE, give, line, run, written
from test_leaving import BODY, ask, ready
from trireme_server import BACKENDS, BINARY, Server, identity, write_model

LOST = "device 0: an illegal memory access was encountered"
EXIT = 70


def hostile(fault):
    config = identity("lost").replace('"identity"', '"hostile"', 1)
    return config + f'parameters {{ key: "fault" value {{ string_value: "{fault}" }} }}\n'


def lose(server):
    """Makes a backend say that its device is lost; the request itself is refused, so that it may be sent elsewhere."""
    status, _, body = server.raw("POST", "/v2/models/lost/infer", BODY.encode())
    assert (status, json.loads(body)["error"]) == (503, LOST)


def test_a_lost_device_ends_the_server_in_order(tmp_path):
    write_model(tmp_path, "lost", hostile("device_lost"))
    write_model(tmp_path, "m", identity("m"))
    write_model(tmp_path, "slow", identity("slow", parameters={"execute_delay_ms": 4000}))
    endpoints = tmp_path / "endpoints"
    with Server(tmp_path, "--drain-delay=2", f"--endpoint-file={endpoints}") as server:
        assert ready(server) == 200
        answers = []
        slow = threading.Thread(target=lambda: answers.append(ask(http.client.HTTPConnection("127.0.0.1", server.http), "slow")[:2]))
        slow.start()
        end = time.monotonic() + 30
        while not running(server, "slow"):
            assert time.monotonic() < end, server_metrics(server)
            time.sleep(0.02)
        lose(server)
        # Before the answer was sent: whoever asks next is told elsewhere.
        assert (ready(server), server.raw("GET", "/v2/health/live")[0]) == (503, 200)
        # Other models go on until the delay is over, and what runs is finished.
        assert ask(http.client.HTTPConnection("127.0.0.1", server.http))[:2] == (200, [1.0])
        lose(server)
        slow.join(60)
        assert answers == [(200, [1.0])]
        assert server.process.wait(60) == EXIT, server.output()
        assert not endpoints.exists()
        text = server.output()
        # Once, however often it is said.
        assert text.count(f"a device is lost to this process: {LOST}") == 1 and "drained" in text


def server_metrics(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.metrics)
    connection.request("GET", "/metrics")
    return connection.getresponse().read()


def running(server, model):
    return f'trireme_running_request_count{{model="{model}",version="1"}} 1' in server_metrics(server).decode()


def test_a_signal_to_a_server_that_has_lost_its_device(tmp_path):
    """The first is what the server does already; the second ends it at once. The code stays."""
    write_model(tmp_path, "lost", hostile("device_lost"))
    with Server(tmp_path, "--drain-delay=60") as server:
        lose(server)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert server.process.poll() is None, server.output()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == EXIT, server.output()


def test_a_device_that_is_lost_while_the_server_drains(tmp_path):
    write_model(tmp_path, "lost", hostile("device_lost"))
    with Server(tmp_path, "--drain-delay=3") as server:
        server.process.send_signal(signal.SIGTERM)
        while ready(server) == 200:
            time.sleep(0.02)
        lose(server)
        assert server.process.wait(60) == EXIT, server.output()


def test_a_device_that_is_lost_in_a_load(tmp_path):
    """The models are not to blame: another code than that of a start that failed."""
    write_model(tmp_path, "lost", hostile("device_lost_load"))
    with Server(tmp_path, wait=False) as server:
        assert server.process.wait(60) == EXIT, server.output()
    # The same where the others would be served.
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, "--exit-on-error=false", "--drain-delay=0", wait=False) as server:
        assert server.process.wait(60) == EXIT, server.output()


def test_a_batch_writes_nothing_of_what_a_lost_device_has_failed(tmp_path):
    repository = tmp_path / "repository"
    write_model(repository, "m", HOSTILE)
    asks = ["echo"] * 40 + ["device_lost"] + ["echo"] * 40
    give(tmp_path, [line(f"c{n}", "/v1/completions", model="m", ask=ask) for n, ask in enumerate(asks)])
    said = run(tmp_path, "--model-repository", repository, "--concurrency=4", code=EXIT)
    assert LOST in said and "the same command goes on" in said
    answers = written(tmp_path) if (tmp_path / "out.jsonl").exists() else []
    assert len(answers) <= 40 and {answer["response"]["status_code"] for answer in answers} <= {200}
    # On a device that works, the same command goes on behind them.
    give(tmp_path, [line(f"c{n}", "/v1/completions", model="m", ask="echo") for n, _ in enumerate(asks)])
    run(tmp_path, "--model-repository", repository)
    assert [answer["custom_id"] for answer in written(tmp_path)] == [f"c{n}" for n in range(len(asks))]


def test_a_batch_whose_device_is_lost_in_the_load(tmp_path):
    write_model(tmp_path / "repository", "lost", hostile("device_lost_load"))
    give(tmp_path, [line("a", model="lost")])
    command = [BINARY, "batch", "--backend-directory", BACKENDS, "--model-repository", tmp_path / "repository"]
    done = subprocess.run([*command, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"], capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT and LOST in done.stderr, done.stderr
