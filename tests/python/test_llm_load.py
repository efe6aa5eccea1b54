"""10,000 short requests (1,000 in the short run) to an engine for language models, by all its front doors: a fifth of the
clients go away, one request in twenty is wrong. None is lost, every answer is the one that is given alone, what is wrong is
named, and the server's memory stays flat."""

import http.client
import json
import os
import queue
import random
import re
import threading
import time

import pytest

from test_llm_metrics import Numbers, put, until
from trireme_server import ROOT, Server

FULL = "TRIREME_TEST_FULL" in os.environ
# Requests by model: a small random one, and in the full run SmolLM2, whose answers take a thousand times the arithmetic.
REQUESTS = {"random": 10_000, "smollm2": 1_000} if FULL else {"random": 1_000}
WORKERS = 16
SEED = int(os.environ.get("TRIREME_SEED", "20261129"))
# Growth of the server's resident memory after the warm-up, whatever the number of requests.
FLAT_KIB = 8 << 10

# Fields of a call that cannot be, and the name that the answer has in `param`.
BAD_CALLS = [
    ("temperature", {"temperature": 3}), ("temperature", {"temperature": "warm"}), ("top_p", {"top_p": -0.1}),
    ("max_tokens", {"max_tokens": 0}), ("prompt", {"max_tokens": 99999}), ("n", {"n": 129}), ("n", {"n": 1.5}),
    ("stop", {"stop": [""]}), ("stop", {"stop": 5}), ("logit_bias.99999", {"logit_bias": {"99999": 1}}),
    ("logprobs", {"logprobs": 21}), ("stream_options", {"stream_options": {"include_usage": True}}), ("store", {"store": True}),
    ("temprature", {"temprature": 1}), ("prompt[1]", {"prompt": [1, 99999]}), ("prompt", {"prompt": []}), ("prompt", {"prompt": None}),
    ("best_of", {"best_of": 2}), ("suffix", {"suffix": "x"}), ("seed", {"seed": "x"}), ("presence_penalty", {"presence_penalty": 9}),
    ("min_tokens", {"min_tokens": -1}), ("stop_token_ids[0]", {"stop_token_ids": [99999]}), ("stream", {"stream": "yes"}),
    ("bad_words[0]", {"bad_words": [""]}), ("ignore_eos", {"ignore_eos": 1}),
]
# The same for inputs of `generate`; the name is in the text of the error.
BAD_INPUTS = [
    ("max_tokens", {"max_tokens": 0}), ("temperature", {"temperature": -1}), ("top_p", {"top_p": 2}), ("top_k", {"top_k": -5}),
    ("repetition_penalty", {"repetition_penalty": 0}), ("min_tokens", {"min_tokens": -1}), ("max_tokens", {"max_tokens": "many"}),
    ("text_input", {"text_input": None}), ("temperature", {"temperature": [1, 2]}),
]


@pytest.fixture(scope="module", params=list(REQUESTS))
def server(request, tmp_path_factory):
    repository = tmp_path_factory.mktemp("load")
    # Room for a few answers at a time, so that some wait and some are preempted.
    sizes = {"max_tokens_in_paged_kv_cache": 8 * 32, "batch_scheduler_policy": "max_utilization", "max_context": 256}
    if request.param == "random":
        put(repository, "m", 12, **sizes)
    else:
        put(repository, "m", 12, load_format="auto", chat_template="none", checkpoint="model.gguf", **sizes)
        os.symlink(ROOT / "model_repository" / "smollm2" / "1" / "model.gguf", repository / "m" / "1" / "model.gguf")
    with Server(repository) as server:
        server.requests = REQUESTS[request.param]
        yield server
        server.alive()


def resident_kib(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1))


class Load:
    """Requests of every kind from several threads; what is not as it should be is kept."""

    def __init__(self, server):
        self.server, self.wrong, self.lock = server, [], threading.Lock()
        self.counts = dict.fromkeys(("answered", "left", "refused"), 0)
        # Few different ones: each is asked for alone before.
        draw = random.Random(SEED)
        self.asked = [
            {"prompt": "".join(draw.choices("abcdefgh ", k=draw.randint(1, 60))), "max_tokens": draw.randint(1, 100),
             "temperature": draw.choice([0, 1]), "seed": draw.randint(0, 9)}
            for _ in range(60)]
        connection = self.connect()
        self.alone = [self.call(connection, dict(asked)) for asked in self.asked]
        assert len({text for text, _ in self.alone}) > 30

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.server.http, timeout=60)

    def post(self, connection, path, body):
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return connection.getresponse()

    def call(self, connection, body):
        """The text of an answer, and how it ended."""
        answer = self.post(connection, "/v1/completions", {"model": "m", **body})
        content = answer.read()
        assert answer.status == 200, content
        if not body.get("stream"):
            [choice] = json.loads(content)["choices"]
            return choice["text"], choice["finish_reason"]
        *chunks, done = [line.removeprefix("data: ") for line in content.decode().split("\n\n") if line and not line.startswith(":")]
        assert done == "[DONE]", content
        choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
        assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
        return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]

    def generate(self, connection, asked):
        body = {"text_input": asked["prompt"], "max_tokens": asked["max_tokens"]}
        answer = self.post(connection, "/v2/models/m/generate", body)
        content = answer.read()
        assert answer.status == 200, content
        return json.loads(content)["text_output"]

    def one(self, connection, number, draw):
        asked = number % len(self.asked)
        kind = draw.random()
        if kind < 0.05:
            return self.bad(connection, draw)
        if kind < 0.25:
            return self.leave(dict(self.asked[asked]), draw)
        body = dict(self.asked[asked])
        if kind < 0.4 and body["temperature"] == 0:
            assert self.generate(connection, body) == self.alone[asked][0], body
        else:
            body["stream"] = draw.random() < 0.5
            assert self.call(connection, body) == self.alone[asked], body
        return "answered"

    def bad(self, connection, draw):
        if draw.random() < 0.7:
            name, fields = draw.choice(BAD_CALLS)
            answer = self.post(connection, "/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 5, **fields})
            content = answer.read()
            assert answer.status == 400, (fields, answer.status, content)
            assert json.loads(content)["error"]["param"] == name, (fields, content)
        else:
            name, fields = draw.choice(BAD_INPUTS)
            answer = self.post(connection, "/v2/models/m/generate", {"text_input": "x", "max_tokens": 5, **fields})
            content = answer.read()
            assert answer.status == 400 and name in json.loads(content)["error"], (fields, answer.status, content)
        return "refused"

    def leave(self, body, draw):
        """Goes away: at once, a little later, or in the middle of a stream."""
        body |= {"max_tokens": 150, "ignore_eos": True, "stream": draw.random() < 0.5}
        connection = self.connect()
        try:
            connection.request("POST", "/v1/completions", json.dumps({"model": "m", **body}), {"content-type": "application/json"})
            if body["stream"] and draw.random() < 0.7:
                answer = connection.getresponse()
                assert answer.status == 200 and answer.read(40)
            elif draw.random() < 0.5:
                time.sleep(draw.random() * 0.01)
        finally:
            connection.close()
        return "left"

    def run(self, first, count):
        numbers = queue.SimpleQueue()
        for number in range(first, first + count):
            numbers.put(number)

        def work():
            connection = self.connect()
            while True:
                try:
                    number = numbers.get_nowait()
                except queue.Empty:
                    return connection.close()
                try:
                    outcome = self.one(connection, number, random.Random(SEED * 1_000_003 + number))
                    with self.lock:
                        self.counts[outcome] += 1
                except Exception as error:  # whatever it is, it is a request without its answer
                    with self.lock:
                        self.wrong.append(f"{number}: {error!r}")
                    connection.close()
                    connection = self.connect()

        threads = [threading.Thread(target=work) for _ in range(WORKERS)]
        began = time.monotonic()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return time.monotonic() - began


def test_many_short_requests(server):
    load, requests = Load(server), server.requests
    # A quarter goes ahead, until all that a server keeps once is there.
    warm_up = requests // 4
    load.run(0, warm_up)
    until(server, "m", lambda now: now["trireme_llm_running"] + now["trireme_llm_waiting"] == 0)
    before, warm = Numbers(server, "m"), resident_kib(server)
    load.counts = dict.fromkeys(load.counts, 0)
    seconds = load.run(warm_up, requests)
    after = until(server, "m", lambda now: now["trireme_llm_running"] + now["trireme_llm_waiting"] == 0)
    grown = resident_kib(server) - warm
    ended = {how: int(after[f"trireme_llm_requests_total/{how}"] - before[f"trireme_llm_requests_total/{how}"])
             for how in ("answered", "cancelled", "late", "refused", "failed")}
    preempted = int(after["trireme_llm_preemptions_total"] - before["trireme_llm_preemptions_total"])
    print(f"\n{requests} requests in {seconds:.1f} s ({requests / seconds:.0f} a second): {load.counts}; the engine ended {ended}, "
          f"{preempted} preemptions; {warm} KiB resident after the warm-up, {grown:+} KiB since")
    assert not load.wrong, (len(load.wrong), load.wrong[:5])
    assert sum(load.counts.values()) == requests
    assert load.counts["left"] > 0.15 * requests and load.counts["refused"] > 0.02 * requests
    # Whoever waited was answered; whoever left has, in the engine, ended one way or the other, or never came so far.
    assert ended["failed"] == ended["late"] == ended["refused"] == 0
    assert load.counts["answered"] <= ended["answered"] <= load.counts["answered"] + load.counts["left"]
    assert 0 < ended["cancelled"] <= load.counts["left"]
    assert preempted > 0
    assert after["trireme_llm_kv_blocks_used"] == 0
    assert grown < FLAT_KIB, f"{grown} KiB more than the {warm} KiB after the warm-up"
