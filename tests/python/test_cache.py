"""The response cache: hits, misses, what tells requests apart, statistics, metrics, flags."""
import json
import re
import subprocess

import numpy as np
import pytest
import tritonclient.http as httpclient
from conftest import SIMPLE
from test_ensemble import chain, infer, stats
from trireme_server import BACKENDS, BINARY, Server, identity, write_model

CACHED = "response_cache { enable: true }\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("cached")
    write_model(repository, "cached", identity("cached", "FP32", "-1", 8, CACHED))
    write_model(repository, "plain", identity("plain"))
    write_model(repository, "sums", SIMPLE.replace('"simple"', '"sums"') + CACHED)
    write_model(repository, "outer", chain("outer", "cached", 2, batch=8) + CACHED)
    write_model(repository, "broken", identity("broken", extra=CACHED).replace('"identity"', '"hostile"', 1)
                + 'parameters { key: "fault" value { string_value: "drop" } }\n')
    with Server(repository, "--cache-config", f"local,size={4 << 20}", "--model-control-mode", "explicit", "--load-model", "*") as server:
        yield server
        server.alive()


def counts(server, model):
    one = stats(server, model)
    inference = one["inference_stats"]
    return {"hit": inference["cache_hit"]["count"], "miss": inference["cache_miss"]["count"], "success": inference["success"]["count"],
            "queue": inference["queue"]["count"], "compute": inference["compute_infer"]["count"], "fail": inference["fail"]["count"],
            "inference": one.get("inference_count", 0), "execution": one.get("execution_count", 0)}


def grown(server, model, work):
    before = counts(server, model)
    work()
    return {key: value - before[key] for key, value in counts(server, model).items() if value != before[key]}


def client(server):
    return httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60)


def ask(server, model, value, **options):
    result = infer(httpclient, client(server), model, {"INPUT0": value}, **options)
    assert np.array_equal(result.as_numpy("OUTPUT0"), value)
    return result


def test_the_second_time_nothing_is_computed(server):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert grown(server, "cached", lambda: ask(server, "cached", value)) == {
        "miss": 1, "success": 1, "queue": 1, "compute": 1, "inference": 2, "execution": 1}
    for _ in range(3):
        assert grown(server, "cached", lambda: ask(server, "cached", value, request_id="other", priority=1)) == {
            "hit": 1, "success": 1, "queue": 1}


def test_everything_that_can_change_an_answer_tells_requests_apart(server):
    value = np.arange(8, dtype=np.float32) + 100
    ask(server, "cached", value.reshape(1, 8))
    assert "miss" in grown(server, "cached", lambda: ask(server, "cached", value.reshape(2, 4)))
    assert "miss" in grown(server, "cached", lambda: ask(server, "cached", value.reshape(1, 8) + 1))
    assert "miss" in grown(server, "cached", lambda: ask(server, "cached", value.reshape(1, 8), parameters={"seed": 1}))
    assert "miss" in grown(server, "cached", lambda: ask(server, "cached", value.reshape(1, 8), parameters={"seed": 2}))
    assert "hit" in grown(server, "cached", lambda: ask(server, "cached", value.reshape(1, 8), parameters={"seed": 1}))
    x, y = np.ones((1, 16), np.int32), np.full((1, 16), 3, np.int32)
    both = infer(httpclient, client(server), "sums", {"INPUT0": x, "INPUT1": y})
    assert both.as_numpy("OUTPUT1")[0, 0] == -2
    swapped = infer(httpclient, client(server), "sums", {"INPUT0": y, "INPUT1": x})
    assert swapped.as_numpy("OUTPUT1")[0, 0] == 2
    one = lambda: infer(httpclient, client(server), "sums", {"INPUT0": x, "INPUT1": y}, ["OUTPUT1"])
    assert "miss" in grown(server, "sums", one)
    assert "hit" in grown(server, "sums", one) and one().as_numpy("OUTPUT0") is None


def test_a_large_request_is_looked_up_elsewhere(server):
    value = np.arange(1 << 19, dtype=np.float32).reshape(1, -1)
    assert grown(server, "cached", lambda: ask(server, "cached", value))["miss"] == 1
    assert grown(server, "cached", lambda: ask(server, "cached", value)) == {"hit": 1, "success": 1, "queue": 1}


def test_the_oldest_go_when_there_is_no_room(server):
    first = np.full((1, 4), 7, np.float32)
    ask(server, "cached", first)
    for number in range(5):
        ask(server, "cached", np.full((1, 1 << 18), number, np.float32))
    assert grown(server, "cached", lambda: ask(server, "cached", first))["miss"] == 1
    # Larger than the cache: never kept, but answered.
    large = np.ones((1, 2 << 20), np.float32)
    for _ in range(2):
        assert grown(server, "cached", lambda: ask(server, "cached", large))["miss"] == 1


def test_an_ensemble_and_its_steps_cache_each_for_itself(server):
    value = np.full((1, 3), 0.5, np.float32)
    def work():
        assert grown(server, "outer", lambda: ask(server, "outer", value))["miss"] == 1
    # Two equal steps: the second one finds the answer of the first.
    steps = grown(server, "cached", work)
    assert (steps["miss"], steps["hit"], steps["success"]) == (1, 1, 2)
    assert grown(server, "cached", lambda: ask(server, "outer", value)) == {}
    assert grown(server, "outer", lambda: ask(server, "outer", value)) == {"hit": 1, "success": 1, "queue": 1}


def test_failures_are_not_kept(server):
    for _ in range(2):
        with pytest.raises(httpclient.InferenceServerException):
            ask(server, "broken", np.ones((1, 2), np.float32))
    assert {key: value for key, value in counts(server, "broken").items() if value} == {"fail": 2, "execution": 2}


def test_a_reload_forgets(server):
    value = np.full((1, 9), 9, np.float32)
    ask(server, "cached", value)
    override = {"parameters": {"config": json.dumps({
        "backend": "identity", "max_batch_size": 4, "response_cache": {"enable": True},
        "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1]}]})}}
    server.raw("POST", "/v2/repository/models/outer/unload")
    status, _, body = server.raw("POST", "/v2/repository/models/cached/load", json.dumps(override).encode())
    assert status == 200, body
    assert grown(server, "cached", lambda: ask(server, "cached", value))["miss"] == 1


def test_metrics_of_models_with_a_cache_only(server):
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics").read().decode()
    for name in ("num_hits", "num_misses", "hit_duration", "miss_duration"):
        models = re.findall(rf'nv_cache_{name}_per_model{{model="(\w+)"', text)
        assert "cached" in models and "plain" not in models
    now = counts(server, "sums")
    assert f'nv_cache_num_hits_per_model{{model="sums",version="1"}} {now["hit"]}' in text


@pytest.mark.parametrize("flags, says", [
    (["--cache-config", "redis,host=x"], "redis"),
    (["--cache-config", "local,size=1", "--response-cache-byte-size", "1"], "Incompatible flags"),
])
def test_flags(tmp_path, flags, says):
    write_model(tmp_path, "m", identity("m"))
    done = subprocess.run([str(BINARY), "serve", "--model-repository", str(tmp_path), "--backend-directory", str(BACKENDS), *flags],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode not in (0, 101) and says in done.stdout + done.stderr


def test_without_a_cache_the_model_is_served_and_told(tmp_path):
    write_model(tmp_path, "cached", identity("cached", extra=CACHED))
    with Server(tmp_path) as server:
        for _ in range(2):
            ask(server, "cached", np.ones((1, 2), np.float32))
        assert counts(server, "cached")["hit"] == 0 and counts(server, "cached")["execution"] == 2
        assert "response_cache has no effect" in server.output()
