"""The metrics of engines for language models: they move with what is asked, and go with their model."""

import contextlib
import http.client
import json
import time

import openai
import pytest
import tritonclient.http as httpclient

from exposition import scrape
from trireme_server import Server, write_model

SHAPE = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 20000, "eos_token_id": 500,
}
# The families that dashboards of TensorRT-LLM's backend read, with the values of their third label.
UPSTREAM = {
    "nv_trt_llm_request_metrics": ("request_type", {"active", "max", "scheduled", "context", "waiting"}),
    "nv_trt_llm_runtime_memory_metrics": ("memory_type", {"cpu", "gpu", "pinned"}),
    "nv_trt_llm_kv_cache_block_metrics": ("kv_cache_block_type", {"max", "free", "used", "tokens_per", "reused", "fraction"}),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric", {"total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"}),
    "nv_trt_llm_general_metrics": ("general_type", {"iteration_counter"}),
}
BLOCK = 32


def put(repository, name, batch, **parameters):
    config = f'name: "{name}"\nbackend: "cpu"\nmax_batch_size: {batch}\n'
    for key, value in {"load_format": "dummy", **parameters}.items():
        config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    write_model(repository, name, config, files=[("1/config.json", json.dumps(SHAPE).encode())])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("engines")
    put(repository, "one", 1, max_tokens_in_paged_kv_cache=40000)
    put(repository, "tight", 8, max_tokens_in_paged_kv_cache=4 * BLOCK, batch_scheduler_policy="max_utilization", max_context=96)
    with Server(repository, "--model-control-mode=explicit", "--load-model=*") as server:
        yield server
        server.alive()


class Numbers:
    """The samples of one model. Of a histogram they are its sum and count."""

    def __init__(self, server, model):
        self.families = scrape(server.metrics)
        self.samples = {}
        for family in self.families.values():
            for (name, labels), value in family.samples.items():
                labels = dict(labels)
                if labels.pop("model", None) == model:
                    assert labels.pop("version") == "1", name
                    self.samples[name, tuple(sorted(labels.items()))] = value

    def __getitem__(self, name):
        name, _, label = name.partition("/")
        [value] = [value for (one, labels), value in self.samples.items() if one == name and (not label or label in dict(labels).values())]
        return value

    def names(self):
        return {name for name, _ in self.samples if "llm" in name}


def complete(server, model, prompt, tokens, **more):
    with openai.OpenAI(base_url=server.url("/v1"), api_key="none", max_retries=0) as client:
        return client.completions.create(
            model=model, prompt=prompt, max_tokens=tokens, temperature=0, extra_body={"ignore_eos": True}, **more)


def until(server, model, holds):
    end = time.monotonic() + 20
    while not holds(numbers := Numbers(server, model)):
        assert time.monotonic() < end, numbers.samples
    return numbers


def test_upstreams_families_have_its_labels(server):
    numbers = Numbers(server, "one")
    for family, (label, values) in UPSTREAM.items():
        assert numbers.families[family].kind == "gauge"
        found = {dict(labels)[label] for name, labels in numbers.samples if name == family}
        assert found == values, family
    for family, kind in (("nv_llm_input_token_len", "total_input_tokens"), ("nv_llm_output_token_len", "total_output_tokens")):
        assert numbers.families[family].kind == "histogram"
        bounds = [dict(labels)["le"] for name, labels in numbers.samples if name == f"{family}_bucket"]
        assert sorted(bounds, key=float) == ["10", "50", "100", "500", "1000", "+Inf"]
        assert numbers[f"{family}_count/{kind}"] >= 0
    assert numbers["nv_trt_llm_request_metrics/max"] == 1
    assert numbers["nv_trt_llm_kv_cache_block_metrics/tokens_per"] == BLOCK
    assert numbers["nv_trt_llm_kv_cache_block_metrics/max"] == 40000 / BLOCK
    # Two bytes for each of a key's and a value's 2 x 16 numbers.
    assert numbers["nv_trt_llm_runtime_memory_metrics/cpu"] >= 40000 * 2 * 2 * 32


def test_numbers_move_with_what_is_asked(server):
    before, others = Numbers(server, "one"), Numbers(server, "tight").samples
    began = time.monotonic()
    for prompt in ([7, 8, 9], [10, 11, 12], [13, 14, 15]):
        assert complete(server, "one", prompt, 24).usage.completion_tokens == 24
    took = time.monotonic() - began
    after = Numbers(server, "one")

    def grew(name):
        return after[name] - before[name]

    # The prompt's step gives the first token, each other step one more.
    for name, by in {
        "trireme_llm_requests_total/answered": 3, "trireme_llm_generated_tokens_total": 72, "trireme_llm_prompt_tokens_total": 9,
        "trireme_llm_time_to_first_token_seconds_count": 3, "trireme_llm_inter_token_latency_seconds_count": 69,
        "trireme_llm_request_duration_seconds_count": 3, "trireme_llm_queue_duration_seconds_count": 3,
        "trireme_llm_steps_total": 72, "trireme_llm_step_tokens_count": 72, "trireme_llm_step_tokens_sum": 9 + 69,
        "nv_trt_llm_general_metrics/iteration_counter": 72, "nv_llm_input_token_len_sum": 9, "nv_llm_input_token_len_count": 3,
        "nv_llm_output_token_len_sum": 72, "nv_llm_output_token_len_count": 3, "trireme_llm_requests_total/cancelled": 0,
        "trireme_llm_requests_total/failed": 0, "trireme_llm_preemptions_total": 0, "trireme_llm_kv_blocks_allocated_total": 3,
    }.items():
        assert grew(name) == by, name
    whole = grew("trireme_llm_request_duration_seconds_sum")
    parts = grew("trireme_llm_time_to_first_token_seconds_sum") + grew("trireme_llm_inter_token_latency_seconds_sum")
    assert 0 < grew("trireme_llm_queue_duration_seconds_sum") < grew("trireme_llm_time_to_first_token_seconds_sum") < whole < took
    assert parts == pytest.approx(whole)
    # At rest nothing is held, and the other model has not moved.
    for name in ("trireme_llm_running", "trireme_llm_waiting", "trireme_llm_kv_blocks_used", "nv_trt_llm_request_metrics/active",
                 "nv_trt_llm_kv_cache_block_metrics/used", "nv_trt_llm_kv_cache_block_metrics/fraction",
                 "nv_trt_llm_inflight_batcher_metrics/generation_requests"):
        assert after[name] == 0, name
    assert Numbers(server, "tight").samples == others


def test_a_prompt_that_was_read_is_a_hit(server):
    prompt = [100 + i % 300 for i in range(10 * BLOCK)]
    complete(server, "one", prompt, 1)
    before = Numbers(server, "one")
    assert complete(server, "one", prompt, 1).usage.prompt_tokens_details.cached_tokens == 9 * BLOCK
    after = Numbers(server, "one")
    for name, by in {"trireme_llm_cached_prompt_tokens_total": 9 * BLOCK, "trireme_llm_prompt_tokens_total": 10 * BLOCK,
                     "trireme_llm_kv_blocks_reused_total": 9, "nv_trt_llm_kv_cache_block_metrics/reused": 9,
                     "trireme_llm_kv_blocks_allocated_total": 1}.items():
        assert after[name] - before[name] == by, name
    assert after["trireme_llm_kv_blocks_cached"] >= 10


def test_what_runs_and_what_waits_is_seen_and_ends(server):
    before = Numbers(server, "one")
    body = json.dumps({"model": "one", "prompt": [3, 4, 5], "max_tokens": 19000, "ignore_eos": True, "temperature": 0})
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=30)
            stack.callback(connection.close)
            connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        now = until(server, "one", lambda now: now["trireme_llm_running"] == 1 and now["trireme_llm_waiting"] == 2)
        assert now["nv_trt_llm_request_metrics/active"] == 3 and now["nv_trt_llm_request_metrics/waiting"] == 2
        assert now["nv_trt_llm_request_metrics/scheduled"] == 1
        assert now["trireme_llm_kv_blocks_used"] > 0 and 0 < now["nv_trt_llm_kv_cache_block_metrics/fraction"] < 1
        used, free = (now[f"nv_trt_llm_kv_cache_block_metrics/{kind}"] for kind in ("used", "free"))
        assert used + free == now["nv_trt_llm_kv_cache_block_metrics/max"]
    gone = until(server, "one", lambda now: now["trireme_llm_running"] == 0 and now["trireme_llm_waiting"] == 0)
    assert gone["trireme_llm_kv_blocks_used"] == 0
    ended = [gone[f"trireme_llm_requests_total/{how}"] - before[f"trireme_llm_requests_total/{how}"] for how in ("answered", "cancelled")]
    assert ended == [0, 3]


def test_preemptions_are_counted(server):
    before = Numbers(server, "tight")
    answer = complete(server, "tight", [[i, i + 1, i + 2] for i in range(1, 5)], 80)
    assert len(answer.choices) == 4 and answer.usage.completion_tokens == 4 * 80
    after = Numbers(server, "tight")
    assert after["trireme_llm_preemptions_total"] > before["trireme_llm_preemptions_total"]
    assert after["trireme_llm_generated_tokens_total"] - before["trireme_llm_generated_tokens_total"] == 4 * 80
    assert after["nv_trt_llm_inflight_batcher_metrics/paused_requests"] == 0


def test_they_go_with_their_model_and_begin_anew(server):
    complete(server, "tight", [1, 2, 3], 5)
    names = Numbers(server, "tight").names()
    assert len(names) >= 40
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60) as client:
        client.unload_model("tight")
        assert until(server, "tight", lambda now: not now.names()).names() == set()
        assert Numbers(server, "one").names() == names
        client.load_model("tight")
    numbers = Numbers(server, "tight")
    assert numbers.names() == names and numbers["trireme_llm_steps_total"] == 0
    complete(server, "tight", [1, 2, 3], 5)
    assert Numbers(server, "tight")["trireme_llm_steps_total"] == 5
