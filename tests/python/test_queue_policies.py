"""Priorities, queue limits, timeouts and the order of answers, by a real run."""
import concurrent.futures
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException
from trireme_server import Server, identity, write_model

SLOW = {"execute_delay_ms": 200}


def ask(server, value, module=httpclient, **options):
    """Returns the answer or the exception, and when it came."""
    port = server.http if module is httpclient else server.grpc
    with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        one = module.InferInput("INPUT0", [1, 1], "FP32")
        one.set_data_from_numpy(np.full((1, 1), value, np.float32))
        try:
            answer = client.infer("m", [one], **options).as_numpy("OUTPUT0")[0, 0]
        except InferenceServerException as error:
            answer = error
        return answer, time.monotonic()


@pytest.fixture
def start(tmp_path):
    def start(batching, **options):
        write_model(tmp_path, "m", identity("m", batch=1, extra=f"dynamic_batching {{ {batching} }}\n", **options))
        return Server(tmp_path)

    return start


def metric(server, name):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


@pytest.mark.parametrize("module", [httpclient, grpcclient])
def test_a_full_queue_refuses(start, module):
    with start("default_queue_policy { max_queue_size: 2 }", parameters=SLOW) as server:
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = [one.result()[0] for one in [pool.submit(ask, server, n, module) for n in range(10)]]
        refused = [str(answer) for answer in answers if isinstance(answer, Exception)]
        # One or two run before the first is done, two wait.
        assert 5 <= len(refused) <= 7, answers
        assert all("Exceeds maximum queue size" in text for text in refused), refused
        assert all(answer == n for n, answer in enumerate(answers) if not isinstance(answer, Exception))
        assert metric(server, "nv_inference_pending_request_count") == 0


def test_a_timeout_is_told_while_every_instance_is_busy(start):
    policy = "default_queue_policy { default_timeout_microseconds: 100000 }"
    with start(policy, parameters={"execute_delay_ms": 1500}) as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, server, 1)
            time.sleep(0.2)
            sent = time.monotonic()
            answer, came = ask(server, 2)
            assert "Request timeout expired" in str(answer) and came - sent < 1.0, (answer, came - sent)
            assert first.result()[0] == 1


def test_a_request_may_shorten_its_timeout_if_allowed(start):
    for allowed in ("true", "false"):
        policy = f"default_queue_policy {{ default_timeout_microseconds: 5000000 allow_timeout_override: {allowed} }}"
        with start(policy, parameters={"execute_delay_ms": 600}) as server:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                first = pool.submit(ask, server, 1)
                time.sleep(0.2)
                answer, _ = ask(server, 2, timeout=100000)
                if allowed == "true":
                    assert "Request timeout expired" in str(answer)
                else:
                    assert answer == 2
                assert first.result()[0] == 1


def test_delayed_requests_run_after_the_others(start):
    policy = "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 2000000 allow_timeout_override: true }"
    with start(policy, parameters={"execute_delay_ms": 400}) as server:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            sent = []
            for value, options in ((0, {}), (1, {"timeout": 50000}), (2, {}), (3, {})):
                sent.append(pool.submit(ask, server, value, **options))
                time.sleep(0.08)
            came = {int(answer): when for answer, when in (one.result() for one in sent)}
    assert sorted(came, key=came.get) == [0, 2, 3, 1]


def test_the_first_level_goes_first(start):
    with start("priority_levels: 3 default_priority_level: 2", parameters=SLOW) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            sent = []
            for value, priority in ((0, 0), (1, 3), (2, 3), (3, 0), (4, 2), (5, 1), (6, 1)):
                sent.append(pool.submit(ask, server, value, priority=priority))
                time.sleep(0.02)
            came = {int(answer): when for answer, when in (one.result() for one in sent)}
    assert sorted(came, key=came.get) == [0, 5, 6, 3, 4, 1, 2]


def test_two_unlike_instances_answer_in_order(tmp_path):
    parameters = {"execute_delay_ms": 60, "instance_wise_delay_multiplier": 5}
    ahead = {}
    for preserve in ("false", "true"):
        extra = f"dynamic_batching {{ preserve_ordering: {preserve} }}\ninstance_group {{ count: 2 }}\n"
        write_model(tmp_path, "m", identity("m", batch=1, extra=extra, parameters=parameters))
        with Server(tmp_path) as server, concurrent.futures.ThreadPoolExecutor(12) as pool:
            sent = []
            for value in range(12):
                sent.append(pool.submit(ask, server, value))
                time.sleep(0.01)
            came = {int(answer): when for answer, when in (one.result() for one in sent)}
            # By how much an answer came before that of an earlier request; clients' threads wake a little apart.
            ahead[preserve] = max(came[n - 1] - came[n] for n in range(1, 12))
    assert ahead["true"] < 0.05, ahead
    # Without it the quick instance overtakes, so the test would see it.
    assert ahead["false"] > 0.1, ahead
