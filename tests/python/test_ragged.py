"""Batches of unlike requests: ragged inputs, what the server adds to a batch (`batch_input`), what it cuts (`batch_output`),
and shape tensors, which must be alike in their values."""
import concurrent.futures

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException
from trireme_server import Server, io, write_model

KINDS = {
    "COUNT": "BATCH_ELEMENT_COUNT",
    "SUM": "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "ZERO": "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "MOST": "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "ITEM": "BATCH_ITEM_SHAPE",
    "FLAT": "BATCH_ITEM_SHAPE_FLATTEN",
}


def config(kinds=KINDS, dtype="INT32", dims="-1, 2", extra="allow_ragged_batch: true"):
    text = 'backend: "ragged" max_batch_size: 16\n' + io("input", "X", "INT8", dims, extra)
    text += io("output", "OWN_X", "INT8", "-1, -1") + io("output", "ALL_X", "INT8", "-1") + io("output", "REQUESTS", "INT32", "1")
    for name, kind in kinds.items():
        text += f'batch_input {{ kind: {kind} target_name: "{name}" data_type: TYPE_{dtype} source_input: "X" }}\n'
        text += io("output", f"ALL_{name}", dtype, "-1")
    text += 'batch_output { target_name: "OWN_X" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "X" }\n'
    # The first request is alone in its batch; while it runs, the others gather.
    text += 'parameters { key: "execute_delay_ms" value { string_value: "300" } }\n'
    return text + "instance_group { count: 1 kind: KIND_CPU }\ndynamic_batching { max_queue_delay_microseconds: 500000 preferred_batch_size: 6 }\n"


def ask(server, model, tensors):
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60) as client:
        inputs = []
        for name, (array, dtype) in tensors.items():
            inputs.append(httpclient.InferInput(name, list(array.shape), dtype))
            inputs[-1].set_data_from_numpy(array)
        return client.infer(model, inputs)


def together(server, requests):
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda tensors: ask(server, "m", tensors), requests))


@pytest.mark.parametrize("dtype", ["INT32", "FP32"])
def test_unlike_requests_share_a_batch_that_is_told_of_them(tmp_path, dtype):
    write_model(tmp_path, "m", config(dtype=dtype))
    # Two, one and three elements of the batch; of 3 × 2, 1 × 2 and 2 × 2.
    shapes = [(2, 3, 2), (1, 1, 2), (3, 2, 2)]
    arrays = [np.full(shape, n + 1, np.int8) for n, shape in enumerate(shapes)]
    with Server(tmp_path) as server:
        answers = together(server, [{"X": (array, "INT8")} for array in arrays])
        for array, answer in zip(arrays, answers):
            assert answer.as_numpy("REQUESTS").tolist() == [[3]], "one batch"
            # The backend answers so many numbers; the shape is the input's.
            np.testing.assert_array_equal(answer.as_numpy("OWN_X"), array)
        seen = {name: answers[0].as_numpy(f"ALL_{name}").ravel().tolist() for name in ["X", *KINDS]}
    # In which order they came is theirs: the values tell it.
    order = list(dict.fromkeys(value - 1 for value in seen["X"]))
    inside = [shapes[n] for n in order]
    counts = [int(np.prod(shape)) for shape in inside]
    assert sorted(counts) == [2, 12, 12]
    assert seen["COUNT"] == counts
    assert seen["SUM"] == list(np.cumsum(counts))
    assert seen["ZERO"] == [0, *np.cumsum(counts)]
    assert len(seen["MOST"]) == 12
    items = [dim for shape in inside for _ in range(shape[0]) for dim in shape[1:]]
    assert seen["ITEM"] == seen["FLAT"] == items


def test_without_allow_ragged_batch_unlike_requests_do_not_meet(tmp_path):
    write_model(tmp_path, "m", config(extra=""))
    arrays = [np.zeros((1, 3, 2), np.int8), np.zeros((1, 1, 2), np.int8)]
    with Server(tmp_path) as server:
        answers = together(server, [{"X": (array, "INT8")} for array in arrays])
        assert [answer.as_numpy("REQUESTS").tolist() for answer in answers] == [[[1]], [[1]]]
        assert sorted(answer.as_numpy("ALL_COUNT").tolist() for answer in answers) == [[[2]], [[6]]]


def test_an_output_that_cannot_be_cut_is_an_error(tmp_path):
    text = config({}).replace('target_name: "OWN_X"', 'target_name: "ALL_X"')
    write_model(tmp_path, "m", text)
    with Server(tmp_path) as server:
        array = np.ones((1, 2, 2), np.int8)
        ask(server, "m", {"X": (array, "INT8")})
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(ask, server, "m", {"X": (array, "INT8")}) for _ in range(2)]
            errors = [str(call.exception()) for call in calls]
        assert all("sent output 'ALL_X' of shape [1,8], but its batch_output needs the elements of [1,2,2]" in error for error in errors), errors
        server.alive()


def test_shape_tensors_are_whole_and_batches_are_of_equal_ones(tmp_path):
    text = 'backend: "tensorrtllm" max_batch_size: 16\n' + io("input", "X", "INT32", "2")
    text += io("input", "S", "INT32", "2", "is_shape_tensor: true")
    text += io("output", "REQUESTS", "INT32", "1") + io("output", "OWN_S", "INT32", "2", "is_shape_tensor: true")
    text += 'parameters { key: "execute_delay_ms" value { string_value: "50" } }\n'
    text += "instance_group { count: 1 kind: KIND_CPU }\ndynamic_batching { max_queue_delay_microseconds: 500000 preferred_batch_size: 4 }\n"
    write_model(tmp_path, "m", text)
    with Server(tmp_path, "--backend-fallback", "tensorrtllm=ragged") as server:
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            metadata = client.get_model_metadata("m", as_json=True)
        assert {tensor["name"]: tensor["shape"] for tensor in metadata["inputs"]} == {"X": ["-1", "2"], "S": ["2"]}
        assert {tensor["name"]: tensor["shape"] for tensor in metadata["outputs"]} == {"REQUESTS": ["-1", "1"], "OWN_S": ["2"]}

        def request(*shape):
            return {"X": (np.zeros((1, 2), np.int32), "INT32"), "S": (np.array(shape, np.int32), "INT32")}

        answers = together(server, [request(1, 2), request(1, 2), request(1, 2), request(1, 2)])
        assert [answer.as_numpy("REQUESTS").tolist() for answer in answers] == [[[4]]] * 4, "equal values are one batch"
        answers = together(server, [request(3, 4), request(4, 3)])
        assert [answer.as_numpy("REQUESTS").tolist() for answer in answers] == [[[1]]] * 2, "unlike ones are two"
        assert [answer.as_numpy("OWN_S").tolist() for answer in answers] == [[3, 4], [4, 3]]
        wrong = {"X": (np.zeros((1, 2), np.int32), "INT32"), "S": (np.zeros((1, 2), np.int32), "INT32")}
        with pytest.raises(InferenceServerException, match=r"unexpected shape for input 'S' for model 'm'. Expected \[2\], got \[1,2\]"):
            ask(server, "m", wrong)
