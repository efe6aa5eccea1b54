"""Sequences: both strategies, controls of every type, the state that the server keeps, backlog, idle time, ends."""
import concurrent.futures
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException
from trireme_server import Server, io, write_model

DIRECT = "direct { }"
OLDEST = "oldest { max_candidate_sequences: 4 }"


def config(strategy, flags="int32_false_true: [ 0, 1 ]", corrid=None, state="", idle_us=5_000_000, batch=4, extra=""):
    text = f'backend: "sequence"\nmax_batch_size: {batch}\n{io("input", "INPUT", "INT32", "1")}{io("output", "OUTPUT", "INT32", "1")}'
    controls = [("START", "START", flags), ("END", "END", flags), ("READY", "READY", flags)]
    if corrid:
        controls.append(("CORRID", "CORRID", f"data_type: {corrid}"))
    inputs = ",\n".join(
        f'  {{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{kind} {value} }} ] }}' for name, kind, value in controls
    )
    return f"{text}sequence_batching {{\n {strategy} max_sequence_idle_microseconds: {idle_us}\n control_input [\n{inputs} ]\n{state} }}\n{extra}"


STATE = """ state [ { input_name: "INPUT_STATE" output_name: "OUTPUT_STATE" data_type: TYPE_INT32 dims: [ 1 ]
  initial_state { name: "first" data_type: TYPE_INT32 dims: [ 1 ] %s } } ]"""


@pytest.fixture
def serve(tmp_path):
    servers = []

    def serve(text, files=()):
        write_model(tmp_path, "m", text)
        for name, data in files:
            (tmp_path / "m" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "m" / name).write_bytes(data)
        servers.append(Server(tmp_path))
        return servers[-1]

    yield serve
    for server in servers:
        server.__exit__()


def send(server, sequence, value, start=False, end=False, module=grpcclient):
    with module.InferenceServerClient(f"127.0.0.1:{server.grpc if module is grpcclient else server.http}") as client:
        one = module.InferInput("INPUT", [1, 1], "INT32")
        one.set_data_from_numpy(np.full((1, 1), value, np.int32))
        answer = client.infer("m", [one], sequence_id=sequence, sequence_start=start, sequence_end=end)
        return int(answer.as_numpy("OUTPUT")[0, 0])


def whole(server, sequence, values, module=grpcclient):
    last = len(values) - 1
    return [send(server, sequence, v, n == 0, n == last, module) for n, v in enumerate(values)]


@pytest.mark.parametrize("module", [httpclient, grpcclient])
@pytest.mark.parametrize("strategy", [DIRECT, OLDEST])
@pytest.mark.parametrize("flags", ["int32_false_true: [ 0, 1 ]", "fp32_false_true: [ 0, 1 ]", "bool_false_true: [ false, true ]"])
def test_every_strategy_and_type_of_control(serve, strategy, flags, module):
    server = serve(config(strategy, flags, corrid="TYPE_UINT64" if strategy == OLDEST else None))
    assert whole(server, 5, [1, 2, 3], module) == [1, 3, 6]
    assert whole(server, 5, [10, 1], module) == [10, 11]


@pytest.mark.parametrize("strategy", [DIRECT, OLDEST])
@pytest.mark.parametrize("corrid", ["TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"])
def test_sequences_beside_each_other(serve, strategy, corrid):
    server = serve(config(strategy, corrid=corrid, extra="instance_group { count: 2 }\n"))
    names = [f"client {n}" if corrid == "TYPE_STRING" else n + 1 for n in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        sums = list(pool.map(lambda n: whole(server, names[n], [n, 1, 1, n]), range(12)))
    assert sums == [[n, n + 1, n + 2, 2 * n + 2] for n in range(12)]
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        stats = client.get_inference_statistics("m", as_json=True)["model_stats"][0]
    assert int(stats["inference_count"]) == 48


@pytest.mark.parametrize("strategy", [DIRECT, OLDEST])
def test_the_server_keeps_the_state(serve, strategy):
    initial = np.array([100], np.int32).tobytes()
    server = serve(config(strategy, state=STATE % 'data_file: "first"'), [("initial_state/first", initial)])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(lambda n: whole(server, n, [n, 1, 1]), range(1, 9)))
    assert sums == [[100 + n, 101 + n, 102 + n] for n in range(1, 9)]
    server = serve(config(strategy, state=STATE % "zero_data: true"))
    assert whole(server, 1, [5, 6]) == [5, 11]


def test_what_does_not_fit_is_refused(serve):
    server = serve(config(DIRECT, corrid="TYPE_UINT64"))
    with pytest.raises(InferenceServerException, match="must specify the START flag on the first request of the sequence"):
        send(server, 7, 1)
    with pytest.raises(InferenceServerException, match="must specify a non-zero or non-empty correlation ID"):
        send(server, 0, 1, start=True)
    with pytest.raises(InferenceServerException, match="control 'CORRID' of model 'm' has type UINT64: give a number"):
        send(server, "seven", 1, start=True)
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        two = grpcclient.InferInput("INPUT", [2, 1], "INT32")
        two.set_data_from_numpy(np.ones((2, 1), np.int32))
        with pytest.raises(InferenceServerException, match="must specify batch-size 1 due to requirements of sequence"):
            client.infer("m", [two], sequence_id=1, sequence_start=True)
    assert whole(server, 7, [1, 2]) == [1, 3]


def test_a_sequence_without_a_slot_waits_for_one(serve):
    server = serve(config(DIRECT, batch=1))
    assert send(server, 1, 1, start=True) == 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, server, 2, 10, True)
        time.sleep(0.3)
        assert not waiting.done()
        assert send(server, 1, 1, end=True) == 2
        assert waiting.result(5) == 10
    assert send(server, 2, 1, end=True) == 11


def test_rows_without_a_request_count_for_the_size_of_a_batch(serve):
    server = serve(config(DIRECT))
    assert send(server, 1, 1, start=True) == 1
    assert send(server, 2, 10, start=True) == 10
    # Each ran alone, the second in the second slot.
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        stats = client.get_inference_statistics("m", as_json=True)["model_stats"][0]
    assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]} == {"1": "1", "2": "1"}
    assert (stats["inference_count"], stats["execution_count"]) == ("2", "2")


def test_an_idle_sequence_ends(serve):
    server = serve(config(DIRECT, batch=1, idle_us=300_000))
    assert send(server, 1, 1, start=True) == 1
    # Its slot goes to the next one without a word of the first.
    assert send(server, 2, 10, start=True) == 10
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        send(server, 1, 1)


def test_an_unload_lets_sequences_end(tmp_path):
    write_model(tmp_path, "m", config(DIRECT))
    with Server(tmp_path, "--model-control-mode=explicit", "--load-model=m") as server:
        assert send(server, 1, 1, start=True) == 1
        assert server.stop() == 0, server.output()
