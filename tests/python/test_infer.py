"""Inference by the real tritonclient over HTTP and gRPC."""
import asyncio
import json

import httpx
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import np_to_triton_dtype

PROTOCOLS = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request):
    return request.param


@pytest.fixture
def client(server, protocol):
    module = PROTOCOLS[protocol]
    port = server.http if protocol == "http" else server.grpc
    with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield client


def tensor(protocol, name, array, dtype=None, **kwargs):
    made = PROTOCOLS[protocol].InferInput(name, list(array.shape), dtype or np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, **kwargs)
    return made


@pytest.mark.parametrize("binary", [True, False])
def test_add_sub(client, protocol, binary):
    if protocol == "grpc" and not binary:
        pytest.skip("gRPC is always binary")
    a, b = np.arange(16, dtype=np.int32).reshape(1, 16), np.full((1, 16), 3, np.int32)
    kwargs = {"binary_data": binary} if protocol == "http" else {}
    inputs = [tensor(protocol, "INPUT0", a, **kwargs), tensor(protocol, "INPUT1", b, **kwargs)]
    outputs = [PROTOCOLS[protocol].InferRequestedOutput(n, **kwargs) for n in ("OUTPUT0", "OUTPUT1")]
    result = client.infer("simple", inputs, outputs=outputs, request_id="abc")
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)
    response = result.get_response()
    assert (response["id"] if protocol == "http" else response.id) == "abc"
    assert (response["model_version"] if protocol == "http" else response.model_version) == "1"


def test_only_the_wanted_output_comes_back(client, protocol):
    a = np.ones((2, 16), np.int32)
    wanted = [PROTOCOLS[protocol].InferRequestedOutput("OUTPUT1")]
    result = client.infer("simple", [tensor(protocol, "INPUT0", a), tensor(protocol, "INPUT1", a)], outputs=wanted)
    assert result.as_numpy("OUTPUT0") is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), np.zeros((2, 16), np.int32))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "fp16", "fp64"])
def test_every_numeric_type(client, protocol, dtype):
    numpy_type = {"fp16": np.float16, "fp64": np.float64, "bool": bool}.get(dtype) or np.dtype(dtype)
    array = (np.arange(12).reshape(3, 4) % 2).astype(numpy_type)
    result = client.infer(f"identity_{dtype}", [tensor(protocol, "INPUT0", array)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_bf16(client, protocol):
    array = np.array([[1.0, -2.5, 0.15625]], ml_dtypes.bfloat16)
    result = client.infer("identity_bf16", [tensor(protocol, "INPUT0", array, "BF16")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("shape", [(1, 0), (1, 1), (4, 1000), (64, 3)])
def test_sizes(client, protocol, shape):
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    result = client.infer("identity", [tensor(protocol, "INPUT0", array)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_no_batch_dimension(client, protocol):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = client.infer("identity_nobatch", [tensor(protocol, "INPUT0", array)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_a_large_tensor(client, protocol):
    array = np.random.default_rng(2).standard_normal((1, 4 << 20)).astype(np.float32)
    result = client.infer("identity", [tensor(protocol, "INPUT0", array)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("binary", [True, False])
def test_bytes(client, protocol, binary):
    texts = np.array([["", "a", "zwölf Boxkämpfer", "日本語", "null\0inside"]], dtype=np.object_)
    kwargs = {"binary_data": binary} if protocol == "http" else {}
    result = client.infer("identity_bytes", [tensor(protocol, "INPUT0", texts, "BYTES", **kwargs)])
    got = [element.decode() if isinstance(element, bytes) else element for element in result.as_numpy("OUTPUT0")[0]]
    assert got == list(texts[0])


def test_compressed_bodies(server):
    array = np.zeros((1, 4096), np.float32)
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
        for request in ("gzip", "deflate"):
            for response in ("gzip", "deflate"):
                result = client.infer("identity", [tensor("http", "INPUT0", array)],
                                      request_compression_algorithm=request, response_compression_algorithm=response)
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_async_http(server):
    array = np.ones((1, 16), np.int32)
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", concurrency=8) as client:
        inputs = [tensor("http", "INPUT0", array), tensor("http", "INPUT1", array)]
        pending = [client.async_infer("simple", inputs) for _ in range(64)]
        for one in pending:
            np.testing.assert_array_equal(one.get_result().as_numpy("OUTPUT0"), array * 2)


def test_async_grpc(server):
    import queue
    answers = queue.Queue()
    array = np.ones((1, 16), np.int32)
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        inputs = [tensor("grpc", "INPUT0", array), tensor("grpc", "INPUT1", array)]
        for _ in range(64):
            client.async_infer("simple", inputs, lambda result, error: answers.put((result, error)))
        for _ in range(64):
            result, error = answers.get(timeout=30)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array * 2)


def test_stream_keeps_the_order(server):
    import queue
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(20):
            array = np.full((1, 4), i, np.float32)
            client.async_stream_infer("identity", [tensor("grpc", "INPUT0", array)], request_id=str(i))
        for i in range(20):
            result, error = answers.get(timeout=30)
            assert error is None
            assert result.get_response().id == str(i)
            assert result.get_response().parameters["triton_final_response"].bool_param is True
        client.stop_stream()


def repeat_inputs(protocol, values, delays, wait=0):
    return [
        tensor(protocol, "IN", np.array(values, np.int32)),
        tensor(protocol, "DELAY", np.array(delays, np.uint32)),
        tensor(protocol, "WAIT", np.array([wait], np.uint32)),
    ]


@pytest.mark.parametrize("values", [[], [7], [4, 2, 0, 1]])
@pytest.mark.parametrize("empty_final", [False, True])
def test_decoupled(server, values, empty_final):
    import queue
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("repeat_int32", repeat_inputs("grpc", values, [1] * len(values)),
                                  request_id="r", enable_empty_final_response=empty_final)
        for i, value in enumerate(values):
            result, error = answers.get(timeout=30)
            assert error is None, error
            assert result.as_numpy("OUT").tolist() == [value] and result.as_numpy("IDX").tolist() == [i]
        if empty_final:
            result, error = answers.get(timeout=30)
            assert error is None
            assert result.get_response().parameters["triton_final_response"].bool_param is True
        client.stop_stream()
    assert answers.empty()


def test_decoupled_is_refused_by_unary_calls(server):
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
        with pytest.raises(Exception, match="doesn't support models with decoupled transaction policy"):
            client.infer("repeat_int32", repeat_inputs("http", [1], [1]))
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        with pytest.raises(Exception, match="doesn't support models with decoupled transaction policy"):
            client.infer("repeat_int32", repeat_inputs("grpc", [1], [1]))


def test_many_streams_of_one_http2_connection(server):
    """The client ends each body in a frame of its own; an answer before that frame would be lost."""
    body = {"inputs": [{"name": name, "shape": [1, 16], "datatype": "INT32"} for name in ("INPUT0", "INPUT1")]}

    async def ask(client, number):
        for tensor in body["inputs"]:
            tensor["data"] = [number] * 16
        content = json.dumps(body).encode()
        answer = await client.post(server.url("/v2/models/simple/infer"), content=content)
        assert answer.http_version == "HTTP/2"
        return answer.json()["outputs"][0]["data"] == [2 * number] * 16

    async def run():
        async with httpx.AsyncClient(http1=False, http2=True, timeout=30) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(400)))

    assert all(asyncio.run(run()))
