"""What the server itself does for calls of OpenAI's API, with a model that misbehaves on request: no weights needed."""

import json
import re
import threading
import time

import httpx
import pytest

from trireme_server import Server, identity, write_model

HOSTILE = (
    identity("m").replace('"identity"', '"hostile"', 1)
    + 'parameters { key: "fault" value { string_value: "openai" } }\n'
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    write_model(repository, "m", HOSTILE)
    write_model(repository, "tensors", identity("tensors"))
    with Server(repository, "--http-max-input-size=2000000", "--http-header-forward-pattern=x-tenant") as server:
        yield server
        server.alive()


def post(server, ask=None, path="chat/completions", headers=None, **body):
    return httpx.post(server.url(f"/v1/{path}"), json={"model": "m", "ask": ask, **body}, headers=headers, timeout=20)


def error(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


def events(answer):
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return [line for line in answer.text.split("\n\n") if line]


def test_the_models_are_those_whose_backend_answers(server):
    models = httpx.get(server.url("/v1/models")).json()
    assert models["object"] == "list"
    assert [(m["id"], m["object"]) for m in models["data"]] == [("m", "model")]
    assert abs(models["data"][0]["created"] - time.time()) < 600
    assert httpx.get(server.url("/v1/models/m")).json() == models["data"][0]
    assert httpx.get(server.url("/v1/models/m:1")).json()["id"] == "m:1"
    for unknown in ("nobody", "m:2", "tensors"):
        assert error(httpx.get(server.url(f"/v1/models/{unknown}")), 404)["code"] == "model_not_found"


def test_a_body_reaches_the_model_as_it_was_sent(server):
    answer = post(server, "echo", headers={"x-request-id": "mine-1"}, path="completions", user="ü", n=1.5)
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json() == {"endpoint": "completions", "id": "mine-1",
                             "body": {"model": "m", "ask": "echo", "user": "ü", "n": 1.5}}
    ids = {post(server, "echo").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_chunks_are_events_and_done_is_the_last(server):
    answer = post(server, "chunks", stream=True, count=100)
    assert events(answer) == [f'data: {{"number":{n}}}' for n in range(100)] + ["data: [DONE]"]
    assert events(post(server, "lines", stream=True)) == ['data: {\ndata:   "number": 1\ndata: }', "data: [DONE]"]


def test_what_the_model_refuses_has_its_status_and_words(server):
    for stream in (False, True):
        told = error(post(server, "error", stream=stream), 400)
        assert (told["param"], told["code"]) == ("messages[0].role", "unknown_role")
    late = events(post(server, "late_error", stream=True))
    assert late[0] == "data: {}" and json.loads(late[1][6:])["error"]["code"] == "unknown_role"
    assert late[2:] == ["data: [DONE]"]
    assert error(post(server, "late_error"), 400)["code"] == "unknown_role"


def test_a_backend_that_breaks_the_rules_costs_its_own_request_only(server):
    assert "several answers" in error(post(server, "two"), 500)["message"]
    assert "with a tensor" in error(post(server, "tensor"), 500)["message"]
    assert "status 1000" in error(post(server, "status"), 500)["message"]
    assert "without an answer" in error(post(server, "nothing"), 500)["message"]
    assert post(server, "echo").status_code == 200


def test_a_stream_that_says_nothing_is_kept_alive_by_comments(server):
    answer = post(server, "slow", stream=True, count=5500)
    assert events(answer) == [": keep-alive", "data: {}", "data: [DONE]"]


def test_bad_requests_are_told_in_the_form_of_the_api(server):
    url = server.url("/v1/chat/completions")
    for body, param in ((b"", None), (b"{", None), (b"[]", None), (b"\xff", None), (b'{"x": "\xff"}', None), (b"{}", "model"),
                        (b'{"model": 3}', "model"), (b'{"model": "m", "stream": 1}', "stream")):
        assert error(httpx.post(url, content=body), 400)["param"] == param
    told = error(httpx.post(url, json={"model": "nobody"}), 404)
    assert (told["param"], told["code"]) == ("model", "model_not_found") and "'m'" in told["message"]
    assert error(httpx.post(url, json={"model": "tensors"}), 404)["code"] == "model_not_found"
    told = error(httpx.post(server.url("/v1/embeddings"), json={"model": "m"}), 404)
    assert told["code"] == "endpoint_not_supported" and "/v1/chat/completions" in told["message"]
    assert error(httpx.post(server.url("/v1/audio/speech"), json={}), 404)["code"] == "unknown_url"
    assert "does not take GET" in error(httpx.get(url), 405)["message"]
    assert error(httpx.post(url, content=b"x" * 2_100_000), 413)["code"] == "request_too_large"
    # The other paths keep their own form.
    assert httpx.post(server.url("/v2/models/nobody/infer"), json={}).json().keys() == {"error"}


def statistics(server, model="m"):
    return httpx.get(server.url(f"/v2/models/{model}/stats")).json()["model_stats"][0]["inference_stats"]


def wait_for(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_calls_count_as_requests(server):
    before = statistics(server)
    for _ in range(3):
        assert post(server, "echo").status_code == 200
    error(post(server, "error"), 400)
    after = statistics(server)
    count = lambda stats, kind: int(stats[kind]["count"])  # noqa: E731
    assert count(after, "success") - count(before, "success") == 3
    assert count(after, "fail") - count(before, "fail") == 1


def test_a_client_that_leaves_cancels_its_call(server):
    def canceled():
        text = httpx.get(f"http://127.0.0.1:{server.metrics}/metrics").text
        return int(re.search(r'nv_inference_request_failure\{model="m",reason="CANCELED",version="1"\} (\d+)', text)[1])

    before = canceled()
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url("/v1/chat/completions"), json={"model": "m", "ask": "wait", "stream": stream}, timeout=0.3)
    wait_for(lambda: canceled() == before + 2, "both calls are cancelled")


def test_a_reader_that_stops_reading_does_not_fill_the_memory_and_its_leaving_ends_the_stream(server):
    body = {"model": "m", "ask": "chunks", "count": 0, "stream": True}
    with httpx.stream("POST", server.url("/v1/chat/completions"), json=body, timeout=20) as answer:
        assert next(answer.iter_lines()) == 'data: {"number":0}'
    # Without the pause it would fail by itself after 65,536 unread chunks.
    assert post(server, "echo").status_code == 200


def test_many_streams_at_once(server):
    outcomes = []

    def one():
        outcomes.append(events(post(server, "chunks", stream=True, count=50))[-1])

    threads = [threading.Thread(target=one) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert outcomes == ["data: [DONE]"] * 16


def test_a_key_is_asked_for_before_the_body_is_read(tmp_path):
    write_model(tmp_path, "m", HOSTILE)
    with Server(tmp_path, "--http-restricted-api=inference:authorization=Bearer secret") as server:
        assert error(post(server, "echo"), 401)["code"] == "invalid_api_key"
        assert post(server, "echo", headers={"authorization": "Bearer secret"}).status_code == 200
        assert httpx.get(server.url("/v1/models")).status_code == 200
