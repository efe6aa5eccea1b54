"""Batching and instances on a real server: what the scripted time-lines promise, seen from outside."""
import concurrent.futures
import json
import time

import numpy as np
import tritonclient.http as httpclient
from trireme_server import Server, identity, write_model


def stats(server, model):
    _, _, body = server.raw("GET", f"/v2/models/{model}/stats")
    return json.loads(body)["model_stats"][0]


def hammer(server, model, clients, requests):
    """`clients` clients that each send `requests` requests, one after the other."""
    array = np.zeros((1, 16), np.float32)

    def one(_):
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60) as client:
            tensor = httpclient.InferInput("INPUT0", [1, 16], "FP32")
            tensor.set_data_from_numpy(array)
            for _ in range(requests):
                client.infer(model, [tensor])

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))


def test_64_clients_fill_batches(tmp_path):
    extra = "instance_group [ { count: 1 kind: KIND_CPU } ]\ndynamic_batching { preferred_batch_size: [ 4, 8, 16, 32 ] }\n"
    write_model(tmp_path, "m", identity("m", "FP32", "16", 32, extra, {"execute_delay_ms": 20}))
    with Server(tmp_path) as server:
        hammer(server, "m", 64, 20)
        result = stats(server, "m")
    histogram = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in result["batch_stats"]}
    average = result["inference_count"] / result["execution_count"]
    print(f"\naverage batch {average:.1f}; executions by batch size:")
    for size in sorted(histogram):
        print(f"{size:4} {'#' * histogram[size]} {histogram[size]}")
    assert result["inference_count"] == 64 * 20
    assert result["execution_count"] == sum(histogram.values())
    assert sum(size * count for size, count in histogram.items()) == 64 * 20
    assert max(histogram) <= 32
    assert average >= 16


def test_three_instances_run_exactly_three_at_once(tmp_path):
    for count in (1, 3):
        write_model(tmp_path, f"m{count}", identity(f"m{count}", "FP32", "16", 0,
                    f"instance_group [ {{ count: {count} kind: KIND_CPU }} ]\n", {"execute_delay_ms": 100}))
    with Server(tmp_path) as server:
        took = {}
        for count in (1, 3):
            array = np.zeros((16,), np.float32)

            def one(_, count=count):
                with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
                    tensor = httpclient.InferInput("INPUT0", [16], "FP32")
                    tensor.set_data_from_numpy(array)
                    client.infer(f"m{count}", [tensor])

            started = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(9) as pool:
                list(pool.map(one, range(9)))
            took[count] = time.monotonic() - started
        print(f"\n9 requests of 100 ms: {took}")
        # Nine requests one after the other take 900 ms, three at a time 300 ms: never less, that would be four at once.
        assert took[1] >= 0.9
        assert 0.3 <= took[3] < 0.6
        assert stats(server, "m3")["execution_count"] == 9


def test_shapes_are_not_mixed(tmp_path):
    extra = "dynamic_batching { max_queue_delay_microseconds: 50000 }\n"
    write_model(tmp_path, "m", identity("m", "FP32", "-1", 32, extra))
    with Server(tmp_path) as server:
        def one(width):
            with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
                array = np.full((1, width), width, np.float32)
                tensor = httpclient.InferInput("INPUT0", [1, width], "FP32")
                tensor.set_data_from_numpy(array)
                np.testing.assert_array_equal(client.infer("m", [tensor]).as_numpy("OUTPUT0"), array)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(one, [1 + i % 3 for i in range(64)]))
        assert stats(server, "m")["inference_count"] == 64


def test_a_batcher_can_be_told_to_wait_for_its_first_requests(tmp_path):
    extra = "dynamic_batching { }\n"
    write_model(tmp_path, "m", identity("m", "FP32", "16", 8, extra))
    with Server(tmp_path, env={"TRITONSERVER_DELAY_SCHEDULER": "8"}) as server:
        hammer(server, "m", 8, 1)
        first = stats(server, "m")
        hammer(server, "m", 1, 3)
        later = stats(server, "m")
    # Without the wait eight clients at once never meet in one batch of a model that takes no time.
    assert [batch["batch_size"] for batch in first["batch_stats"]] == [8]
    assert first["execution_count"] == 1
    assert later["execution_count"] == 4


def test_a_number_that_is_none_ends_the_start(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, env={"TRITONSERVER_DELAY_SCHEDULER": "many"}, wait=False) as server:
        assert server.process.wait(20) == 1
        assert "TRITONSERVER_DELAY_SCHEDULER is 'many'" in server.output()
