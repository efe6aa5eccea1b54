"""What an engine for language models does with more than it can take."""

import contextlib
import http.client
import json
import queue
import time

import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient

from test_llm_metrics import Numbers, complete, put, until
from trireme_server import Server

QUEUE = "dynamic_batching { default_queue_policy { max_queue_size: 2 } }\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("limits")
    put(repository, "m", 1, max_tokens_in_paged_kv_cache=20000)
    with (repository / "m" / "config.pbtxt").open("a") as config:
        config.write(QUEUE)
    put(repository, "short", 1, max_context=64)
    put(repository, "many", 4)
    with Server(repository) as server:
        yield server
        server.alive()


@contextlib.contextmanager
def busy(server, answers):
    """So many long answers are asked for; they end with the block."""
    body = json.dumps({"model": "m", "prompt": [3, 4, 5], "max_tokens": 19000, "ignore_eos": True, "temperature": 0})
    with contextlib.ExitStack() as stack:
        for begun in range(1, answers + 1):
            connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=30)
            stack.callback(connection.close)
            connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            # One after the other: the first has to be out of the queue before the last one comes, which is full with two.
            until(server, "m", lambda now: now["trireme_llm_running"] == 1
                  and now["trireme_llm_running"] + now["trireme_llm_waiting"] == begun)
        yield
    until(server, "m", lambda now: now["trireme_llm_running"] + now["trireme_llm_waiting"] == 0)


def test_too_many_are_told_to_come_again(server):
    with busy(server, 3):
        with pytest.raises(openai.RateLimitError) as caught:
            complete(server, "m", [1, 2], 3)
        error = caught.value
        assert error.code == "rate_limit_exceeded" and "2 requests are waiting, the limit is 2" in error.message
        assert error.response.headers["retry-after"] == "1"
        with pytest.raises(openai.RateLimitError):
            complete(server, "m", [1, 2], 3, stream=True)
        status, _, body = server.raw("POST", "/v2/models/m/generate", json.dumps({"text_input": "x", "max_tokens": 3}).encode())
        assert status == 503 and b"the limit is 2" in body
    assert complete(server, "m", [1, 2], 3).usage.completion_tokens == 3


def test_a_prompt_of_many_mebibytes_holds_nobody_up(server):
    text = "word " * (4 << 20)
    for ask in (
        lambda: server.raw("POST", "/v1/completions", json.dumps({"model": "m", "prompt": text, "max_tokens": 3}).encode(),
                           {"content-type": "application/json"}),
        lambda: server.raw("POST", "/v2/models/m/generate", json.dumps({"text_input": text, "max_tokens": 3}).encode()),
    ):
        began = time.monotonic()
        status, _, body = ask()
        assert status == 400 and b"20000" in body and b"more" in body, body[:300]
        # To read all of it takes more than ten times as long.
        assert time.monotonic() - began < 6


def test_an_answer_longer_than_the_context(server):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(server, "m", [1, 2, 3], 19998)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "prompt"
    # The tensors' way: it is cut to what there is room for.
    before = Numbers(server, "short")["trireme_llm_generated_tokens_total"]
    status, _, _ = server.raw("POST", "/v2/models/short/generate", json.dumps({"text_input": "abc", "max_tokens": 999}).encode())
    assert status == 200
    assert 0 < Numbers(server, "short")["trireme_llm_generated_tokens_total"] - before <= 61


def test_a_request_that_is_late_gives_its_place_back(server):
    """The timeout of a request, in microseconds, holds while its answer is being generated."""
    inputs = [grpcclient.InferInput("text_input", [1, 1], "BYTES"), grpcclient.InferInput("max_tokens", [1, 1], "INT32")]
    inputs[0].set_data_from_numpy(np.array([[b"abc"]], object))
    inputs[1].set_data_from_numpy(np.array([[19000]], np.int32))
    answers = queue.SimpleQueue()
    began = time.monotonic()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("m", inputs, timeout=300_000)
        result, error = answers.get(timeout=30)
    assert result is None and "Request timeout expired" in str(error), error
    assert time.monotonic() - began < 5
    until(server, "m", lambda now: now["trireme_llm_requests_total/late"] == 1 and now["trireme_llm_kv_blocks_used"] == 0)


def test_several_streams_in_one_call_to_a_slow_reader(server):
    """Four prompts stream at once into a connection that is read late: each is whole in the end."""
    prompts = [[i, i + 1] for i in range(1, 5)]
    plain = complete(server, "many", prompts, 300)
    texts = [""] * 4
    with openai.OpenAI(base_url=server.url("/v1"), api_key="none", max_retries=0) as client:
        stream = client.completions.create(model="many", prompt=prompts, max_tokens=300, temperature=0, stream=True,
                                           extra_body={"ignore_eos": True})
        for number, chunk in enumerate(stream):
            if number % 300 == 0:
                time.sleep(0.2)
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in plain.choices]
