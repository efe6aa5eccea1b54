"""The repository that the README serves, with real weights."""
import json
import queue

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

QUESTION = "What is the capital of France?"


def test_generate(full_server):
    body = json.dumps({"text_input": QUESTION, "max_tokens": 32, "temperature": 0}).encode()
    status, headers, answer = full_server.raw("POST", "/v2/models/smollm2/generate", body)
    assert status == 200 and headers["Content-Type"].startswith("application/json")
    assert json.loads(answer)["text_output"] == "The capital of France is Paris."


def test_generate_stream(full_server):
    body = json.dumps({"text_input": QUESTION, "max_tokens": 32, "temperature": 0, "stream": True}).encode()
    status, headers, answer = full_server.raw("POST", "/v2/models/smollm2/generate_stream", body)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    pieces = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: ")]
    assert len(pieces) >= 6
    assert "".join(piece.get("text_output", "") for piece in pieces) == "The capital of France is Paris."


def test_a_seed_gives_the_same_text(full_server):
    def run(seed):
        body = json.dumps({"text_input": "Tell me a story.", "max_tokens": 24, "temperature": 1.0, "random_seed": seed}).encode()
        status, _, answer = full_server.raw("POST", "/v2/models/smollm2/generate", body)
        assert status == 200, answer
        return json.loads(answer)["text_output"]
    assert run(7) == run(7)
    assert len({run(seed) for seed in range(4)}) > 1


def test_stop_words(full_server):
    body = json.dumps({"text_input": QUESTION, "max_tokens": 32, "temperature": 0, "stop_words": ["France"]}).encode()
    status, _, answer = full_server.raw("POST", "/v2/models/smollm2/generate", body)
    assert status == 200 and "France" not in json.loads(answer)["text_output"]


def test_a_bad_parameter_is_named(full_server):
    for field, value in (("temperature", -1), ("top_p", 2), ("max_tokens", -5)):
        body = json.dumps({"text_input": QUESTION, "max_tokens": 4, field: value}).encode()
        status, _, answer = full_server.raw("POST", "/v2/models/smollm2/generate", body)
        assert status == 400 and field in json.loads(answer)["error"], answer


def test_stream_over_grpc(full_server):
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{full_server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        text = grpcclient.InferInput("text_input", [1], "BYTES")
        text.set_data_from_numpy(np.array([QUESTION.encode()], np.object_))
        limit = grpcclient.InferInput("max_tokens", [1], "INT32")
        limit.set_data_from_numpy(np.array([32], np.int32))
        zero = grpcclient.InferInput("temperature", [1], "FP32")
        zero.set_data_from_numpy(np.array([0], np.float32))
        stream = grpcclient.InferInput("stream", [1], "BOOL")
        stream.set_data_from_numpy(np.array([True]))
        client.async_stream_infer("smollm2", [text, limit, zero, stream], enable_empty_final_response=True)
        got = ""
        while True:
            result, error = answers.get(timeout=60)
            assert error is None, error
            piece = result.as_numpy("text_output")
            got += "" if piece is None else b"".join(piece.reshape(-1)).decode()
            if result.get_response().parameters["triton_final_response"].bool_param:
                break
        client.stop_stream()
    assert got == "The capital of France is Paris."


def test_embeddings(full_server):
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.",
             "The stock market fell sharply today."]
    with httpclient.InferenceServerClient(f"127.0.0.1:{full_server.http}") as client:
        tensor = httpclient.InferInput("text", [4, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[t.encode()] for t in texts], np.object_))
        vectors = client.infer("minilm", [tensor]).as_numpy("embedding")
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(vectors[0][:6], [0.0332, 0.0044, -0.0063, 0.0484, -0.1387, -0.0336], atol=2e-4)
    np.testing.assert_allclose(vectors @ vectors[0], [1.0, 0.7553, -0.1050, 0.0037], atol=2e-4)


def test_simple_string(full_server):
    with httpclient.InferenceServerClient(f"127.0.0.1:{full_server.http}") as client:
        inputs = []
        for name, start in (("INPUT0", 0), ("INPUT1", 100)):
            array = np.array([[str(start + i).encode() for i in range(16)]], np.object_)
            one = httpclient.InferInput(name, [1, 16], "BYTES")
            one.set_data_from_numpy(array)
            inputs.append(one)
        result = client.infer("simple_string", inputs)
    assert [int(x) for x in result.as_numpy("OUTPUT0")[0]] == [100 + 2 * i for i in range(16)]
    assert [int(x) for x in result.as_numpy("OUTPUT1")[0]] == [-100] * 16
