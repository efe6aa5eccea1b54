"""Ensembles: dataflow, pruning, shapes, decoupled steps, failures, cancellation, statistics, no copies."""
import json
import pathlib
import queue
import re
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from conftest import REPEAT, SIMPLE
from trireme_server import Server, identity, io, write_model


def step(model, inputs, outputs, version=-1):
    maps = "".join(f'input_map {{ key: "{key}" value: "{tensor}" }}\n' for key, tensor in inputs.items())
    maps += "".join(f'output_map {{ key: "{key}" value: "{tensor}" }}\n' for key, tensor in outputs.items())
    return f'step {{\nmodel_name: "{model}"\nmodel_version: {version}\n{maps}}}\n'


def ensemble(name, inputs, outputs, *steps, batch=8, extra=""):
    text = f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: {batch}\n'
    text += "".join(io("input", *one) for one in inputs) + "".join(io("output", *one) for one in outputs)
    return text + "ensemble_scheduling {\n" + "".join(steps) + extra + "}\n"


def chain(name, model, length, dtype="FP32", dims="-1", batch=64, extra=""):
    names = ["INPUT0"] + [f"t{number}" for number in range(1, length)] + ["OUTPUT0"]
    steps = [step(model, {"INPUT0": a}, {"OUTPUT0": b}) for a, b in zip(names, names[1:])]
    return ensemble(name, [("INPUT0", dtype, dims)], [("OUTPUT0", dtype, dims)], *steps, batch=batch, extra=extra)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("ensembles")
    write_model(repository, "simple", SIMPLE)
    write_model(repository, "repeat_int32", REPEAT)
    write_model(repository, "identity", identity())
    write_model(repository, "single", identity("single", "FP32", "-1", 0))
    write_model(repository, "slow", identity("slow", parameters={"execute_delay_ms": 200}))
    write_model(repository, "work", identity("work", "INT32", "1", 0, parameters={"execute_delay_ms": 1}))
    write_model(repository, "broken", identity("broken").replace('"identity"', '"hostile"', 1) +
                'parameters { key: "fault" value { string_value: "wrong_name" } }\n')
    write_model(repository, "chain", chain("chain", "identity", 3))
    write_model(repository, "mixed", ensemble(
        "mixed", [("INPUT0", "FP32", "-1")], [("OUTPUT0", "FP32", "-1")],
        step("identity", {"INPUT0": "INPUT0"}, {"OUTPUT0": "a"}),
        step("single", {"INPUT0": "a"}, {"OUTPUT0": "b"}),
        step("identity", {"INPUT0": "b"}, {"OUTPUT0": "OUTPUT0"})))
    # (x+y, x-y) -> (2x, 2y)
    write_model(repository, "twice", ensemble(
        "twice", [("X", "INT32", "16"), ("Y", "INT32", "16")], [("TWO_X", "INT32", "16"), ("TWO_Y", "INT32", "16"), ("SUM", "INT32", "16")],
        step("simple", {"INPUT0": "X", "INPUT1": "Y"}, {"OUTPUT0": "SUM", "OUTPUT1": "DIFFERENCE"}),
        step("simple", {"INPUT0": "SUM", "INPUT1": "DIFFERENCE"}, {"OUTPUT0": "TWO_X", "OUTPUT1": "TWO_Y"})))
    write_model(repository, "two_slow", chain("two_slow", "slow", 2))
    write_model(repository, "fails", ensemble(
        "fails", [("INPUT0", "FP32", "-1")], [("OUTPUT0", "FP32", "-1"), ("OTHER", "FP32", "-1")],
        step("broken", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"}),
        step("identity", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OTHER"})))
    for name, limit in (("stream", ""), ("stream_limited", "max_inflight_requests: 2\n")):
        write_model(repository, name, ensemble(
            name, [("IN", "INT32", "-1"), ("DELAY", "UINT32", "-1"), ("WAIT", "UINT32", "1")], [("OUT", "INT32", "1"), ("IDX", "UINT32", "1")],
            step("repeat_int32", {"IN": "IN", "DELAY": "DELAY", "WAIT": "WAIT"}, {"OUT": "raw", "IDX": "IDX"}),
            step("work", {"INPUT0": "raw"}, {"OUTPUT0": "OUT"}), batch=0, extra=limit))
    return repository


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository, "--model-control-mode", "explicit", "--load-model", "*") as server:
        yield server
        server.alive()


def clients(server):
    return [(httpclient, httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")),
            (grpcclient, grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}"))]


def infer(module, client, model, tensors, outputs=None, **options):
    inputs = []
    for name, value in tensors.items():
        one = module.InferInput(name, list(value.shape), {"float32": "FP32", "int32": "INT32", "uint32": "UINT32", "object": "BYTES"}[value.dtype.name])
        one.set_data_from_numpy(value)
        inputs.append(one)
    asked = None if outputs is None else [module.InferRequestedOutput(name) for name in outputs]
    return client.infer(model, inputs, outputs=asked, **options)


def stats(server, model):
    _, _, body = server.raw("GET", f"/v2/models/{model}/stats")
    return json.loads(body)["model_stats"][0]


def test_a_chain_over_both_doors(server):
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    for module, client in clients(server):
        assert np.array_equal(infer(module, client, "chain", {"INPUT0": value}).as_numpy("OUTPUT0"), value)
        result = infer(module, client, "chain", {"INPUT0": value}, request_id="mine")
        response = result.get_response()
        assert (response["id"] if isinstance(response, dict) else response.id) == "mine"


def test_an_answer_tells_of_its_sequence(server):
    module, client = clients(server)[0]
    value = {"INPUT0": np.ones((1, 4), np.float32)}
    told = infer(module, client, "chain", value, sequence_id=7, sequence_start=True).get_response()["parameters"]
    assert (told["sequence_id"], told["sequence_start"], told["sequence_end"]) == (7, True, False)
    assert "sequence_id" not in infer(module, client, "chain", value).get_response().get("parameters", {})


def test_a_graph_and_only_what_is_asked_for(server):
    x, y = (np.arange(32, dtype=np.int32).reshape(2, 16) * factor for factor in (3, 5))
    for module, client in clients(server):
        result = infer(module, client, "twice", {"X": x, "Y": y})
        assert np.array_equal(result.as_numpy("TWO_X"), 2 * x) and np.array_equal(result.as_numpy("TWO_Y"), 2 * y)
        assert np.array_equal(result.as_numpy("SUM"), x + y)
        before = stats(server, "simple")["inference_stats"]["success"]["count"]
        result = infer(module, client, "twice", {"X": x, "Y": y}, ["SUM"])
        assert np.array_equal(result.as_numpy("SUM"), x + y) and result.as_numpy("TWO_X") is None
        assert stats(server, "simple")["inference_stats"]["success"]["count"] == before + 1, "the second step was not needed"


def test_steps_with_and_without_batches(server):
    module, client = clients(server)[0]
    one = np.ones((1, 5), np.float32)
    assert infer(module, client, "mixed", {"INPUT0": one}).as_numpy("OUTPUT0").shape == (1, 5)
    with pytest.raises(httpclient.InferenceServerException) as error:
        infer(module, client, "mixed", {"INPUT0": np.ones((2, 5), np.float32)})
    assert "in ensemble 'mixed', " in str(error.value) and "unexpected shape" in str(error.value)


def test_statistics_are_sums_of_the_steps(server):
    module, client = clients(server)[1]
    before = {model: stats(server, model) for model in ("chain", "identity")}
    for _ in range(5):
        infer(module, client, "chain", {"INPUT0": np.ones((2, 3), np.float32)})
    after = {model: stats(server, model) for model in ("chain", "identity")}

    def grown(model, *path):
        def at(tree):
            for key in path:
                tree = tree.get(key, 0) if isinstance(tree, dict) else tree
            return int(tree)
        return at(after[model]) - at(before[model])
    assert grown("chain", "inference_count") == 10 and grown("chain", "execution_count") == 5
    assert grown("identity", "inference_count") == 30 and grown("identity", "execution_count") == 15
    for part in ("compute_input", "compute_infer", "compute_output"):
        assert grown("chain", "inference_stats", part, "ns") == grown("identity", "inference_stats", part, "ns")
        assert grown("chain", "inference_stats", part, "count") == 5
    assert grown("chain", "inference_stats", "queue", "count") == 5
    sizes = {int(one["batch_size"]): int(one["compute_infer"]["count"]) for one in after["chain"]["batch_stats"]}
    assert sizes[2] >= 5


@pytest.mark.parametrize("model", ["stream", "stream_limited"])
def test_each_answer_of_a_decoupled_step_goes_on_in_order(server, model):
    count = 200
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        assert client.get_model_config(model, as_json=True)["config"]["model_transaction_policy"]["decoupled"]
        client.start_stream(lambda result, error: answers.put((result, error)))
        inputs = []
        for name, value in (("IN", np.arange(count, dtype=np.int32)), ("DELAY", np.zeros(count, np.uint32)), ("WAIT", np.zeros(1, np.uint32))):
            one = grpcclient.InferInput(name, list(value.shape), "INT32" if name == "IN" else "UINT32")
            one.set_data_from_numpy(value)
            inputs.append(one)
        client.async_stream_infer(model, inputs, enable_empty_final_response=True)
        got, final = [], False
        while not final:
            result, error = answers.get(timeout=30)
            assert error is None, error
            final = result.get_response().parameters["triton_final_response"].bool_param
            if result.as_numpy("OUT") is not None:
                got.append((int(result.as_numpy("OUT")[0]), int(result.as_numpy("IDX")[0])))
        client.stop_stream()
    assert got == [(number, number) for number in range(count)]


def test_unary_calls_of_a_decoupled_ensemble_are_refused(server):
    body = json.dumps({"inputs": [{"name": "IN", "shape": [1], "datatype": "INT32", "data": [1]}]}).encode()
    status, _, _ = server.raw("POST", "/v2/models/stream/infer", body)
    assert status == 501


def test_a_step_that_fails(server):
    module, client = clients(server)[0]
    failed = stats(server, "fails")["inference_stats"]["fail"]["count"]
    with pytest.raises(httpclient.InferenceServerException) as error:
        infer(module, client, "fails", {"INPUT0": np.ones((1, 4), np.float32)})
    assert "in ensemble 'fails', " in str(error.value) and "NOBODY" in str(error.value)
    assert stats(server, "fails")["inference_stats"]["fail"]["count"] == failed + 1
    # What the failing step does not make can still be had.
    assert infer(module, client, "fails", {"INPUT0": np.ones((1, 4), np.float32)}, ["OTHER"]).as_numpy("OTHER").shape == (1, 4)


def test_a_client_that_goes_away_stops_the_steps(server):
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        one = grpcclient.InferInput("INPUT0", [1, 4], "FP32")
        one.set_data_from_numpy(np.ones((1, 4), np.float32))
        before = stats(server, "slow")["inference_stats"]["success"]["count"]
        calls = [client.async_infer("two_slow", [one], lambda *_: None) for _ in range(10)]
        time.sleep(0.05)
        for call in calls:
            call.cancel()
        started = time.monotonic()
        infer(grpcclient, client, "slow", {"INPUT0": np.ones((1, 4), np.float32)})
        assert time.monotonic() - started < 2
        assert stats(server, "slow")["inference_stats"]["success"]["count"] - before <= 3


def test_a_reload_of_a_member_in_the_middle_loses_nothing(server):
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        one = grpcclient.InferInput("INPUT0", [1, 4], "FP32")
        one.set_data_from_numpy(np.ones((1, 4), np.float32))
        answers = queue.Queue()
        for _ in range(4):
            client.async_infer("two_slow", [one], lambda result, error: answers.put(error))
        time.sleep(0.1)
        override = {"parameters": {"config": json.dumps({
            "backend": "identity", "max_batch_size": 64, "parameters": {"execute_delay_ms": {"string_value": "190"}},
            "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
            "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1]}]})}}
        status, _, body = server.raw("POST", "/v2/repository/models/slow/load", json.dumps(override).encode())
        assert status == 200, body
        assert [answers.get(timeout=20) for _ in range(4)] == [None] * 4
        status, _, _ = server.raw("POST", "/v2/repository/models/slow/load")
        assert status == 200


def memory(server, field):
    """A line of the server's /proc status, in bytes."""
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text).group(1)) * 1024


def copied(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()
    return int(re.search(r"^trireme_copied_bytes_total (\d+)$", text, re.MULTILINE).group(1))


@pytest.mark.parametrize("module", [httpclient, grpcclient])
def test_sixty_four_mebibytes_through_five_steps_stay_where_they_are(tmp_path, module):
    member = identity("tell").replace('"identity"', '"hostile"', 1) + 'parameters { key: "fault" value { string_value: "tell_address" } }\n'
    write_model(tmp_path, "tell", member)
    write_model(tmp_path, "five", chain("five", "tell", 5))
    value = np.arange(16 << 20, dtype=np.float32).reshape(1, -1)
    with Server(tmp_path, "--http-max-input-size", str(80 << 20)) as server:
        port, more = (server.http, {"network_timeout": 120}) if module is httpclient else (server.grpc, {})
        client = module.InferenceServerClient(f"127.0.0.1:{port}", **more)
        infer(module, client, "five", {"INPUT0": value[:, :1]})
        # From here on the largest resident memory is kept anew.
        pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        idle = memory(server, "VmRSS")
        result = infer(module, client, "five", {"INPUT0": value})
        assert np.array_equal(result.as_numpy("OUTPUT0"), value)
        addresses = re.findall(r"INPUT0 is at (\S+)", server.output())[5:]
        assert len(addresses) == 5 and len(set(addresses)) == 1, addresses
        assert copied(server) == 0
        peak = memory(server, "VmHWM") - idle
        print(f"\n{module.__name__}: at most {peak / value.nbytes:.2f} tensors above idle")
        assert peak <= 1.3 * value.nbytes, peak


@pytest.mark.parametrize("steps, says", [
    ([step("nowhere", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})], "config.pbtxt:8:1: ensemble 'm' depends on 'nowhere'"),
    ([step("good", {"WRONG": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})], "is mapping to non-existing input WRONG in model good"),
    ([step("int", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})], "inconsistent data type: TYPE_FP32 is inferred from model"),
    ([step("small", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})], "which only allows maximum batch size to be 2"),
    ([step("good", {"INPUT0": "loop"}, {"OUTPUT0": "OUTPUT0"}), step("good", {"INPUT0": "INPUT0"}, {"OUTPUT0": "x"}),
      step("two", {"INPUT0": "x", "INPUT1": "loop"}, {"OUTPUT0": "loop"})], "the steps wait for each other: two -> two"),
])
def test_an_ensemble_that_does_not_fit(tmp_path, steps, says):
    write_model(tmp_path, "good", identity("good"))
    write_model(tmp_path, "int", identity("int", "INT32"))
    write_model(tmp_path, "small", identity("small", batch=2))
    write_model(tmp_path, "two", SIMPLE.replace('"simple"', '"two"').replace("INT32", "FP32").replace("16", "-1"))
    write_model(tmp_path, "m", ensemble("m", [("INPUT0", "FP32", "-1")], [("OUTPUT0", "FP32", "-1")], *steps))
    with Server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        line = next(line for line in json.loads(body) if line["name"] == "m")
        assert line.get("state") == "UNAVAILABLE" and says in line["reason"], line


def test_the_example(full_server):
    texts = {"query": ["  How do I   bake BREAD? "] * 2, "document": ["Knead the dough and put it into the oven.", "The train leaves at noon."]}
    tensors = {name: np.array(value, dtype=object).reshape(2, 1) for name, value in texts.items()}
    for module, client in clients(full_server):
        result = infer(module, client, "text_pipeline", tensors)
        score = result.as_numpy("score")
        assert score.shape == (2, 1) and score[0, 0] > score[1, 0] + 0.2, score
        own = infer(module, client, "minilm", {"text": np.array([["how do i bake bread?"]], dtype=object)}).as_numpy("embedding")
        assert np.allclose(result.as_numpy("query_embedding")[0], own[0], atol=1e-6)
