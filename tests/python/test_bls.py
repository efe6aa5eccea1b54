"""Calls of a backend to other models: answers, errors, inheritance, refusals."""
import json
import queue
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from conftest import REPEAT
from test_ensemble import infer, stats
from trireme_server import Server, identity, io, write_model


def caller(name, model, mode="then", dtype="FP32", dims="-1", batch=64, extra=""):
    text = identity(name, dtype, dims, batch, extra, {"model": model, "mode": mode})
    return text.replace('"identity"', '"caller"', 1)


# The conformance kit has no other models to ask, so here `caller` and the host are looked at while they talk.
@pytest.fixture(scope="module", params=["0", "1"], ids=["plain", "checked"])
def server(tmp_path_factory, request):
    repository = tmp_path_factory.mktemp("bls")
    write_model(repository, "identity", identity())
    write_model(repository, "slow", identity("slow", parameters={"execute_delay_ms": 300}))
    write_model(repository, "repeat_int32", REPEAT)
    for mode in ("then", "wait", "twice"):
        write_model(repository, f"ask_{mode}", caller(f"ask_{mode}", "identity", mode))
    write_model(repository, "ask_slow", caller("ask_slow", "slow"))
    write_model(repository, "ask_nobody", caller("ask_nobody", "nobody"))
    write_model(repository, "self_wait", caller("self_wait", "self_wait", "wait"))
    write_model(repository, "self_then", caller("self_then", "self_then"))
    write_model(repository, "ping", caller("ping", "pong", "wait"))
    write_model(repository, "pong", caller("pong", "ping", "wait"))
    outer = caller("ask_each", "repeat_int32", "each").split("input [")[0].replace("max_batch_size: 64", "max_batch_size: 0")
    outer += 'parameters { key: "model" value { string_value: "repeat_int32" } }\nparameters { key: "mode" value { string_value: "each" } }\n'
    outer += "model_transaction_policy { decoupled: true }\n" + REPEAT[REPEAT.index("input ["):]
    write_model(repository, "ask_each", outer)
    flags = ("--model-control-mode", "explicit", "--load-model", "*")
    with Server(repository, *flags, env={"TRIREME_ABI_CHECK": request.param}) as server:
        yield server
        server.alive()
        assert "broke the rule" not in server.output(), server.output()


def ask(server, model, value=np.arange(6, dtype=np.float32).reshape(2, 3), **options):
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
    return infer(httpclient, client, model, {"INPUT0": value}, **options).as_numpy("OUTPUT0")


@pytest.mark.parametrize("model, factor", [("ask_then", 1), ("ask_wait", 1), ("ask_twice", 2)])
def test_answers_come_back(server, model, factor):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    before = stats(server, "identity")["inference_stats"]["success"]["count"]
    assert np.array_equal(ask(server, model, value), factor * value)
    assert stats(server, "identity")["inference_stats"]["success"]["count"] == before + factor


def test_every_answer_of_a_decoupled_model(server):
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        inputs = []
        for name, value in (("IN", np.arange(20, dtype=np.int32)), ("DELAY", np.zeros(20, np.uint32)), ("WAIT", np.zeros(1, np.uint32))):
            one = grpcclient.InferInput(name, list(value.shape), "INT32" if name == "IN" else "UINT32")
            one.set_data_from_numpy(value)
            inputs.append(one)
        client.async_stream_infer("ask_each", inputs, enable_empty_final_response=True)
        got, final = [], False
        while not final:
            result, error = answers.get(timeout=30)
            assert error is None, error
            final = result.get_response().parameters["triton_final_response"].bool_param
            if result.as_numpy("OUT") is not None:
                got.append(int(result.as_numpy("OUT")[0]))
        client.stop_stream()
    assert got == list(range(20))


@pytest.mark.parametrize("model, says", [
    ("ask_nobody", "unknown model: 'nobody'"),
    # One instance that waits for itself, directly and by way of another model.
    ("self_wait", "could never be answered"),
    ("ping", "could never be answered"),
    # It does not wait, so that each call can run; but there is an end.
    ("self_then", "more than 16 models"),
])
def test_calls_that_cannot_be_answered(server, model, says):
    started = time.monotonic()
    with pytest.raises(httpclient.InferenceServerException) as error:
        ask(server, model)
    assert says in str(error.value) and time.monotonic() - started < 5


def test_an_error_of_the_model_is_passed_on(server):
    with pytest.raises(httpclient.InferenceServerException) as error:
        ask(server, "ask_then", np.ones((1, 3), np.float32), outputs=None, parameters={"x": "y"}, model_version="7")
    assert "version 7" in str(error.value)


def test_a_client_that_goes_away_cancels_the_calls(server):
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        one = grpcclient.InferInput("INPUT0", [1, 4], "FP32")
        one.set_data_from_numpy(np.ones((1, 4), np.float32))
        before = stats(server, "slow")["inference_stats"]["success"]["count"]
        calls = [client.async_infer("ask_slow", [one], lambda *_: None) for _ in range(10)]
        time.sleep(0.1)
        for call in calls:
            call.cancel()
        started = time.monotonic()
        infer(grpcclient, client, "slow", {"INPUT0": np.ones((1, 4), np.float32)})
        assert time.monotonic() - started < 2
        assert stats(server, "slow")["inference_stats"]["success"]["count"] - before <= 3


def test_many_at_once(server):
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        for number in range(200):
            one = grpcclient.InferInput("INPUT0", [1, 4], "FP32")
            one.set_data_from_numpy(np.full((1, 4), number, np.float32))
            client.async_infer("ask_then", [one], lambda result, error, number=number: answers.put((number, result, error)))
        for _ in range(200):
            number, result, error = answers.get(timeout=30)
            assert error is None and result.as_numpy("OUTPUT0")[0, 0] == number
