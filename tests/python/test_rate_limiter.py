"""Instances that wait for resources: `--rate-limit=execution_count`."""
import concurrent.futures
import json
import subprocess
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from test_batching import stats
from tritonclient.utils import InferenceServerException
from trireme_server import BACKENDS, BINARY, Server, identity, write_model

ON = "--rate-limit=execution_count"


def group(resources, priority=0, count=1):
    """An instance group that needs these resources: (name, count) or (name, count, global)."""
    listed = ", ".join(f'{{ name: "{name}" count: {number} {"global: true" if rest else ""} }}'
                       for name, number, *rest in resources)
    return (f"instance_group [ {{ count: {count} kind: KIND_CPU "
            f"rate_limiter {{ resources [ {listed} ] priority: {priority} }} }} ]\n")


def slow(name, resources, milliseconds, **more):
    return identity(name, "FP32", "1", 0, group(resources, **more), {"execute_delay_ms": milliseconds})


def infer(server, model):
    tensor = grpcclient.InferInput("INPUT0", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        return client.infer(model, [tensor], client_timeout=60)


def together(server, models):
    """One request to each at the same time, and how long all of them took."""
    since = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(models)) as pool:
        list(pool.map(lambda model: infer(server, model), models))
    return time.monotonic() - since


@pytest.mark.parametrize("flags, parallel", [
    ([ON], False),
    ([ON, "--rate-limit-resource=R:4", "--rate-limit-resource=G:1"], False),
    ([ON, "--rate-limit-resource=R:6:0", "--rate-limit-resource=G:1"], True),
    ([], True),
])
def test_models_that_do_not_fit_beside_each_other_take_turns(tmp_path, flags, parallel):
    write_model(tmp_path, "a", slow("a", [("R", 4)], 200))
    write_model(tmp_path, "b", slow("b", [("R", 2), ("G", 1, True)], 200))
    with Server(tmp_path, *flags) as server:
        took = together(server, ["a", "b", "a", "b"])
        assert (took < 0.75) == parallel, took


def test_what_is_global_is_shared_and_no_resource_limits_nobody(tmp_path):
    write_model(tmp_path, "a", slow("a", [("G", 1, True)], 200, count=4))
    write_model(tmp_path, "b", slow("b", [], 200, count=4))
    with Server(tmp_path, ON) as server:
        assert together(server, ["a"] * 4) >= 0.8
        assert together(server, ["b"] * 4) < 0.7


def test_twice_the_priority_is_half_the_executions(tmp_path):
    write_model(tmp_path, "a", slow("a", [("R", 1)], 10, priority=1))
    write_model(tmp_path, "b", slow("b", [("R", 1)], 10, priority=2))
    with Server(tmp_path, ON) as server:
        until = time.monotonic() + 2

        def client(model):
            while time.monotonic() < until:
                infer(server, model)

        # Several for each model, so that it always has something to run.
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(client, ["a", "b"] * 8))
        done = {model: stats(server, model)["execution_count"] for model in "ab"}
        assert 1.8 <= done["a"] / done["b"] <= 2.2, done


def test_a_batch_grows_while_its_instance_waits(tmp_path):
    write_model(tmp_path, "busy", slow("busy", [("R", 1)], 600))
    extra = group([("R", 1)]) + "dynamic_batching { }\n"
    write_model(tmp_path, "batched", identity("batched", "FP32", "1", 8, extra))

    def one(_):
        tensor = grpcclient.InferInput("INPUT0", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            client.infer("batched", [tensor])

    with Server(tmp_path, ON) as server, concurrent.futures.ThreadPoolExecutor(11) as pool:
        busy = [pool.submit(infer, server, "busy") for _ in range(3)]
        concurrent.futures.wait(busy, return_when=concurrent.futures.FIRST_COMPLETED)
        # The second one runs now.
        list(pool.map(one, range(8)))
        [one.result() for one in busy]
        assert [one["batch_size"] for one in stats(server, "batched")["batch_stats"]] == [8]


@pytest.mark.parametrize("flags, there", [(["--rate-limit-resource=R:3"], 3), (["--rate-limit-resource=R:9:1"], 0),
                                          (["--rate-limit-resource=S:9"], 0)])
def test_an_instance_that_could_never_run_fails_its_load(tmp_path, flags, there):
    write_model(tmp_path, "a", slow("a", [("R", 4)], 0))
    command = [str(BINARY), "serve", "--model-repository", str(tmp_path), "--backend-directory", str(BACKENDS),
               "--http-port=0", "--grpc-port=0", "--metrics-port=0", ON, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert (f'Resource count for "R" is limited to {there} which will prevent scheduling of one or more model instances, '
            "the minimum required count is 4") in done.stdout + done.stderr


def test_a_resource_is_global_everywhere_or_nowhere(tmp_path):
    write_model(tmp_path, "a", slow("a", [("R", 1)], 0))
    with Server(tmp_path, ON, "--model-control-mode=explicit", "--load-model=a") as server:
        write_model(tmp_path, "b", slow("b", [("R", 1, True)], 0))
        status, _, body = server.raw("POST", "/v2/repository/models/b/load", b"{}")
        assert status == 400 and "present as both global and device-specific resource" in json.loads(body)["error"]
        infer(server, "a")


def test_needs_change_in_place(tmp_path):
    write_model(tmp_path, "a", slow("a", [("R", 2)], 0))
    flags = [ON, "--rate-limit-resource=R:10", "--model-control-mode=explicit", "--load-model=a"]
    with Server(tmp_path, *flags) as server, grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        write_model(tmp_path, "a", slow("a", [("R", 32)], 0))
        with pytest.raises(InferenceServerException, match="the minimum required count is 32"):
            client.load_model("a")
        infer(server, "a")
        for count in (10, 1):
            write_model(tmp_path, "a", slow("a", [("R", count)], 0))
            client.load_model("a")
            infer(server, "a")


def test_resources_without_a_limiter_are_spoken_of(tmp_path):
    write_model(tmp_path, "a", slow("a", [("R", 2)], 0))
    with Server(tmp_path, "--rate-limit-resource=R:1") as server:
        assert "--rate-limit-resource has no effect" in server.output()
        assert "the rate limiter is off (--rate-limit): this has no effect" in server.output()
        infer(server, "a")


def test_a_call_that_waits_for_what_its_caller_holds_is_refused(tmp_path):
    write_model(tmp_path, "called", slow("called", [("R", 2)], 0))
    for name, count in (("greedy", 3), ("modest", 2)):
        text = identity(name, "FP32", "1", 0, group([("R", count)]), {"model": "called", "mode": "wait"})
        write_model(tmp_path, name, text.replace('"identity"', '"caller"', 1))
    with Server(tmp_path, ON, "--rate-limit-resource=R:4") as server:
        infer(server, "modest")
        with pytest.raises(InferenceServerException, match="could never be answered: what it needs of the rate limiter"):
            infer(server, "greedy")
        infer(server, "called")
