"""The life of models: polling, overrides, versions, instances, dependencies, warm-up, start and end."""
import concurrent.futures
import json
import os
import shutil
import struct
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from trireme_server import Server, identity, io, write_model

EXPLICIT = "--model-control-mode=explicit"
POLL = ("--model-control-mode=poll", "--repository-poll-secs=1")


def index(server):
    """The lines of the index by (model, version)."""
    _, _, body = server.raw("POST", "/v2/repository/index")
    return {(line["name"], line.get("version")): line for line in json.loads(body)}


def state(server, model, version="1"):
    return index(server).get((model, version), {}).get("state")


def load(server, model, config=None, files=None):
    parameters = {**({"config": config} if config is not None else {}), **(files or {})}
    body = json.dumps({"parameters": parameters}).encode() if parameters else b""
    status, _, answer = server.raw("POST", f"/v2/repository/models/{model}/load", body, timeout=60)
    return status, json.loads(answer)["error"] if status != 200 else ""


def unload(server, model, dependents=False):
    body = json.dumps({"parameters": {"unload_dependents": dependents}}).encode()
    status, _, answer = server.raw("POST", f"/v2/repository/models/{model}/unload", body)
    assert status == 200, answer


def infer(server, model, version="", value=1.0):
    """The status, and the model's answer."""
    path = f"/v2/models/{model}/versions/{version}/infer" if version else f"/v2/models/{model}/infer"
    body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1], "data": [value]}]}
    status, _, answer = server.raw("POST", path, json.dumps(body).encode(), timeout=60)
    return status, json.loads(answer)


def successes(server, model, version="1"):
    """Counted since this object was loaded; a reload starts anew."""
    _, _, body = server.raw("GET", f"/v2/models/{model}/versions/{version}/stats")
    return json.loads(body)["model_stats"][0]["inference_stats"]["success"]["count"]


def eventually(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def ready(server):
    return server.raw("GET", "/v2/health/ready")[0] == 200


def json_config(**more):
    tensor = {"data_type": "TYPE_FP32", "dims": [-1]}
    config = {"backend": "identity", "max_batch_size": 8, "input": [{"name": "INPUT0", **tensor}],
              "output": [{"name": "OUTPUT0", **tensor}]}
    return json.dumps({**config, **more})


def group(count):
    return f"instance_group {{ count: {count} kind: KIND_CPU }}\n"


# Polling

def test_poll_adds_changes_and_removes(tmp_path):
    write_model(tmp_path, "first", identity("first"))
    with Server(tmp_path, *POLL) as server:
        assert state(server, "first") == "READY"
        write_model(tmp_path, "second", identity("second"))
        eventually(lambda: state(server, "second") == "READY")

        write_model(tmp_path, "first", identity("first"), versions=(3,))
        eventually(lambda: state(server, "first", "3") == "READY")
        assert state(server, "first", "1") == "UNAVAILABLE"

        write_model(tmp_path, "second", identity("second", batch=3))
        eventually(lambda: json.loads(server.raw("GET", "/v2/models/second/config")[2])["max_batch_size"] == 3)

        shutil.rmtree(tmp_path / "first")
        shutil.rmtree(tmp_path / "second")
        eventually(lambda: index(server) == {})
        assert infer(server, "first")[0] == 404
        write_model(tmp_path, "first", identity("first"))
        eventually(lambda: state(server, "first") == "READY")
        server.alive()
        for action in ("load", "unload"):
            status, _, body = server.raw("POST", f"/v2/repository/models/first/{action}", b"")
            assert status == 503 and b"explicit model load / unload is not allowed if polling is enabled" in body


def test_poll_leaves_what_is_being_copied(tmp_path):
    write_model(tmp_path, "good", identity("good"))
    with Server(tmp_path, *POLL) as server:
        directory = write_model(tmp_path, "copied", identity("copied"))
        with open(directory / "1" / "weights", "wb") as file:
            for _ in range(40):
                file.write(b"x" * 1000)
                file.flush()
                time.sleep(0.1)
                assert ("copied", "1") not in index(server)
        eventually(lambda: state(server, "copied") == "READY")
        assert "copied" in server.output() and "left until it is still" in server.output()


def test_poll_tries_what_failed_again_and_keeps_what_serves(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, *POLL) as server:
        assert infer(server, "m")[0] == 200
        write_model(tmp_path, "m", 'backend: "nowhere"\n')
        eventually(lambda: "nowhere" in server.output())
        assert infer(server, "m")[0] == 200 and state(server, "m") == "READY" and ready(server)
        assert successes(server, "m") == 2, "the old object still serves"
        failures = server.output().count("load failed for model 'm'")
        eventually(lambda: server.output().count("load failed for model 'm'") > failures)

        write_model(tmp_path, "new", 'backend: "nowhere"\n')
        eventually(lambda: state(server, "new") == "UNAVAILABLE")
        assert not ready(server)
        write_model(tmp_path, "new", identity("new"))
        write_model(tmp_path, "m", identity("m", batch=2))
        eventually(lambda: ready(server) and state(server, "new") == "READY")
        eventually(lambda: json.loads(server.raw("GET", "/v2/models/m/config")[2])["max_batch_size"] == 2)


def test_poll_starts_with_an_empty_repository(tmp_path):
    with Server(tmp_path, *POLL) as server:
        server.alive()
        write_model(tmp_path, "m", identity("m"))
        eventually(lambda: state(server, "m") == "READY")


# Repositories

def test_a_model_in_two_repositories_is_served_by_neither(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_model(one, "m", identity("m"))
    write_model(one, "a", identity("a"))
    write_model(two, "b", identity("b"))
    reason = "model appears in two or more repositories"
    with Server([one, two], *POLL) as server:
        assert {name for name, _ in index(server)} == {"m", "a", "b"} and infer(server, "m")[0] == 200
        write_model(two, "m", identity("m"))
        eventually(lambda: index(server).get(("m", None), {}).get("reason") == reason)
        assert index(server)[("m", None)]["state"] == "UNAVAILABLE" and infer(server, "m")[0] != 200
        assert ready(server) and infer(server, "a")[0] == 200, "as upstream: what cannot be read does not count"
        shutil.rmtree(one / "m")
        eventually(lambda: state(server, "m") == "READY")
        server.alive()
    write_model(one, "m", identity("m"))
    with Server([one, two], "--exit-on-error=false") as server:
        line = index(server)[("m", None)]
        assert (line["state"], line["reason"]) == ("UNAVAILABLE", reason) and infer(server, "b")[0] == 200
    with Server([one, two], EXPLICIT) as server:
        status, error = load(server, "m")
        assert status == 400 and reason in error


def test_without_completion_a_model_needs_a_configuration(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    (write_model(tmp_path, "bare", identity("bare")) / "config.pbtxt").unlink()
    with Server(tmp_path, "--disable-auto-complete-config", "--exit-on-error=false") as server:
        assert "failed to open text file for read" in index(server)[("bare", None)]["reason"]
        status, answer = infer(server, "bare", "1")
        assert (status, answer["error"]) == (404, "Request for unknown model: 'bare' is not found")
        assert ready(server) and infer(server, "m")[0] == 200


def test_another_configuration_by_name(tmp_path):
    for name in ("with", "without"):
        directory = write_model(tmp_path, name, identity(name, batch=2))
    (tmp_path / "with" / "configs").mkdir()
    (tmp_path / "with" / "configs" / "small.pbtxt").write_text(identity("with", batch=1))
    with Server(tmp_path, "--model-config-name=small") as server:
        sizes = [json.loads(server.raw("GET", f"/v2/models/{name}/config")[2])["max_batch_size"] for name in ("with", "without")]
        assert sizes == [1, 2], directory


# Loading

def test_loading_what_has_not_changed_does_nothing(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        assert infer(server, "m")[0] == 200
        assert load(server, "m") == (200, "")
        assert successes(server, "m") == 1, "the same object"
        os.utime(tmp_path / "m" / "config.pbtxt", (1, 1))
        assert load(server, "m") == (200, "")
        # The configuration says the same, so that its versions are kept.
        assert successes(server, "m") == 1
        (tmp_path / "m" / "1" / "weights").write_bytes(b"x")
        assert load(server, "m") == (200, "") and successes(server, "m") == 0, "another file"


def test_a_new_version_leaves_the_others_as_they_are(tmp_path):
    policy = "version_policy { all { } }\n"
    write_model(tmp_path, "m", identity("m", extra=policy), versions=(1, 2))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        for version in ("1", "2"):
            assert infer(server, "m", version)[0] == 200
        write_model(tmp_path, "m", identity("m", extra=policy), versions=(3,))
        (tmp_path / "m" / "2" / "weights").write_bytes(b"x")
        assert load(server, "m") == (200, "")
        assert [successes(server, "m", version) for version in ("1", "2", "3")] == [1, 0, 0]
        for version in ("1", "2", "3"):
            metadata = json.loads(server.raw("GET", f"/v2/models/m/versions/{version}")[2])
            assert metadata["versions"] == ["1", "2", "3"]
        # The policy alone changes nothing of what goes on serving.
        write_model(tmp_path, "m", identity("m", extra="version_policy { specific { versions: [ 1 ] } }\n"))
        assert load(server, "m") == (200, "")
        assert successes(server, "m", "1") == 1 and state(server, "m", "2") == "UNAVAILABLE"
        assert json.loads(server.raw("GET", "/v2/models/m/config")[2])["version_policy"] == {"specific": {"versions": [1]}}
        # One that fails fails all.
        write_model(tmp_path, "m", identity("m", extra=policy))
        shutil.rmtree(tmp_path / "m" / "2")
        (tmp_path / "m" / "2").write_bytes(b"")
        assert load(server, "m") == (200, "")
        server.alive()


def test_a_config_in_the_load_call(tmp_path):
    write_model(tmp_path, "m", identity("m"))

    def batch(server):
        return json.loads(server.raw("GET", "/v2/models/m/config")[2])["max_batch_size"]
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        assert load(server, "m", config=json_config()) == (200, "") and batch(server) == 8
        status, error = load(server, "m", config=json_config(max_batch_sise=1))
        assert status == 400 and "max_batch_sise" in error and batch(server) == 8
        assert load(server, "m") == (200, "") and batch(server) == 8, "it stays, as nothing has changed"
        write_model(tmp_path, "m", identity("m"))
        assert load(server, "m") == (200, "") and batch(server) == 64, "what is newer on the disk wins"
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            client.load_model("m", config=json_config(max_batch_size=5))
            assert batch(server) == 5
            with pytest.raises(Exception, match="Unrecognized load parameter"):
                client._client_stub.RepositoryModelLoad(_load_message("m", "what"))


def _load_message(model, key):
    message = grpcclient.service_pb2.RepositoryModelLoadRequest(model_name=model)
    message.parameters[key].string_param = "x"
    return message


def test_files_in_the_load_call(tmp_path):
    write_model(tmp_path, "m", identity("m"), versions=(3,), files=[("3/weights", b"x")])
    temporary = tmp_path / ".tmp"
    temporary.mkdir()
    with Server(tmp_path, EXPLICIT, "--load-model=m", env={"TMPDIR": str(temporary)}) as server:
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
            with pytest.raises(Exception, match="Load parameter 'config' must be specified for model file override"):
                client.load_model("m", files={"file:1/weights": b"y"})
            assert state(server, "m", "3") == "READY"
            # Only what was given is seen: version 3 is not part of it.
            client.load_model("m", config=json_config(), files={"file:1/weights": b"y"})
            assert (state(server, "m", "1"), state(server, "m", "3")) == ("READY", "UNAVAILABLE")
            assert infer(server, "m", "1")[0] == 200 and infer(server, "m", "3")[0] != 200
            # A model that no repository has.
            client.load_model("other", config=json_config(), files={"file:1/weights": b"y"})
            assert infer(server, "other")[0] == 200
            with pytest.raises(Exception, match="at least one version must be available"):
                client.load_model("other", config=json_config(), files={"file:weights": b"y"})
            assert infer(server, "other")[0] == 200, "a failed reload leaves the old one"
            for path in ("../x", "/tmp/x", "1/../../x", "1/../../../../tmp/x"):
                with pytest.raises(Exception, match="inside the model's directory"):
                    client.load_model("m", config=json_config(), files={f"file:{path}": b"y"})
            assert len(list(temporary.iterdir())) == 2
            client.load_model("m")
            assert (state(server, "m", "1"), state(server, "m", "3")) == ("UNAVAILABLE", "READY")
            unload(server, "other")
            eventually(lambda: state(server, "other") == "UNAVAILABLE")
            eventually(lambda: not list(temporary.iterdir()))
            with pytest.raises(Exception, match="failed to load 'other', failed to poll from model repository"):
                client.load_model("other")
            client.load_model("m", config=json_config(), files={"file:1/weights": b"y"})
        server.alive()
        assert len(list(temporary.iterdir())) == 1 and server.stop() == 0
        assert not list(temporary.iterdir()), "the directory goes with the model"


def test_names_that_leave_the_repository(tmp_path):
    write_model(tmp_path / "repository", "m", identity("m"))
    write_model(tmp_path, "outside", identity("outside"))
    with Server(tmp_path / "repository", EXPLICIT) as server:
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            for name in ("../outside", "..", ".", "", " ", "m/../m", "/etc"):
                with pytest.raises(Exception, match="not a model's name"):
                    client.load_model(name)
        server.alive()


def test_a_load_is_tried_again(tmp_path):
    write_model(tmp_path, "m", 'backend: "hostile"\nmax_batch_size: 8\n'
                + io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1")
                + 'parameters { key: "fault" value { string_value: "panic_create" } }\n')
    with Server(tmp_path, EXPLICIT, "--model-load-retry-count=2") as server:
        status, error = load(server, "m")
        assert status == 400 and error.startswith("load failed for model 'm': version 1 is at UNAVAILABLE state: ")
        assert "retry 1 of 2" in server.output() and "retry 2 of 2" in server.output()
        assert "retry 3" not in server.output()


def test_independent_models_load_at_once(tmp_path):
    slow = identity("x", parameters={"creation_delay_sec": 2})
    for number in range(4):
        write_model(tmp_path, f"slow{number}", slow.replace('"x"', f'"slow{number}"'))
    write_model(tmp_path, "quick", identity("quick"))
    with Server(tmp_path, EXPLICIT, "--load-model=quick") as server:
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            # Two calls for each: the second waits for the first and finds nothing to do.
            loads = [pool.submit(load, server, f"slow{number % 4}") for number in range(8)]
            time.sleep(0.5)
            assert state(server, "slow0") == "LOADING" and infer(server, "quick")[0] == 200
            assert {one.result()[0] for one in loads} == {200}
        assert time.monotonic() - start < 6


def test_the_versions_of_a_model_load_at_once(tmp_path):
    extra = "version_policy { all { } }\n"
    write_model(tmp_path, "m", identity("m", extra=extra, parameters={"creation_delay_sec": 1}), versions=(1, 2, 3, 4))
    with Server(tmp_path, EXPLICIT) as server:
        start = time.monotonic()
        assert load(server, "m") == (200, "")
        assert 1 <= time.monotonic() - start < 3
        assert [state(server, "m", version) for version in "1234"] == ["READY"] * 4


def test_an_unload_waits_for_a_load(tmp_path):
    write_model(tmp_path, "m", identity("m", parameters={"creation_delay_sec": 2}))
    with Server(tmp_path, EXPLICIT) as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            loading = pool.submit(load, server, "m")
            eventually(lambda: state(server, "m") == "LOADING")
            unload(server, "m")
            assert loading.result() == (200, "")
        eventually(lambda: index(server)[("m", "1")].get("reason") == "unloaded")
        assert ready(server) and load(server, "m") == (200, "")


def test_many_operations_at_once_leave_a_sound_server(tmp_path):
    policy = "version_policy { all { } }\n"
    for name in ("a", "b", "c"):
        write_model(tmp_path, name, identity(name, batch=8, extra=policy), versions=(1, 2))
    write_model(tmp_path, "e", ensemble("e", "a", "b"))
    write_model(tmp_path, "f", ensemble("f", "e", "c"))
    with Server(tmp_path, EXPLICIT, "--load-model=a") as server:
        def work(seed):
            random = np.random.default_rng(seed)
            for _ in range(60):
                name = str(random.choice(list("abcef")))
                action = int(random.integers(6))
                if action < 2:
                    load(server, name)
                elif action == 2:
                    load(server, "c", config=json_config(version_policy={"latest": {"num_versions": 1}}))
                elif action == 3:
                    unload(server, name, dependents=bool(random.integers(2)))
                elif action == 4:
                    config = identity("b", batch=8, extra=policy + group(int(random.integers(1, 4))))
                    write_model(tmp_path, "b", config, versions=(int(random.integers(1, 4)),))
                    load(server, "b")
                else:
                    status, body = infer(server, str(random.choice(list("abc"))))
                    assert status in (200, 404, 503), body
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for one in [pool.submit(work, seed) for seed in range(6)]:
                one.result(timeout=120)
        for name in ("f", "e", "a", "b", "c"):
            unload(server, name, dependents=True)
        eventually(lambda: all_states(server) == {})
        assert ready(server)
        for name in ("a", "b", "c"):
            assert load(server, name) == (200, "") and infer(server, name)[0] == 200
        assert server.stop() == 0


# Instances in place

def test_instances_come_and_go_while_the_model_serves(tmp_path):
    delay = {"execute_delay_ms": 150}
    write_model(tmp_path, "m", identity("m", parameters=delay, extra=group(1)))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        def at_once(count):
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(count) as pool:
                assert {status for status, _ in pool.map(lambda _: infer(server, "m"), range(count))} == {200}
            return time.monotonic() - start

        assert at_once(4) > 0.55
        write_model(tmp_path, "m", identity("m", parameters=delay, extra=group(4)))
        assert load(server, "m") == (200, "")
        assert successes(server, "m") == 4, "not reloaded"
        assert at_once(4) < 0.55
        assert json.loads(server.raw("GET", "/v2/models/m/config")[2])["instance_group"][0]["count"] == 4

        # Fewer of them while all are at work: what runs and waits is answered.
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(infer, server, "m") for _ in range(12)]
            time.sleep(0.1)
            write_model(tmp_path, "m", identity("m", parameters=delay, extra=group(2)))
            assert load(server, "m") == (200, "")
            assert {one.result()[0] for one in asked} == {200}
        assert successes(server, "m") == 20
        assert 0.25 < at_once(4) < 0.55
        # Together with anything else it is a reload.
        write_model(tmp_path, "m", identity("m", batch=4, parameters=delay, extra=group(1)))
        assert load(server, "m") == (200, "") and successes(server, "m") == 0
        assert server.stop() == 0


def test_instances_that_cannot_be_made_change_nothing(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        assert infer(server, "m")[0] == 200
        write_model(tmp_path, "m", identity("m", extra="instance_group { count: 2 kind: KIND_GPU }\n"))
        status, error = load(server, "m")
        assert status == 400 and "KIND_GPU" in error
        assert infer(server, "m")[0] == 200 and successes(server, "m") == 2


def test_queue_timeouts_hold_after_a_change_in_place(tmp_path):
    def config(count):
        policy = "dynamic_batching { default_queue_policy { default_timeout_microseconds: 200000 } }\n"
        return identity("m", batch=1, parameters={"execute_delay_ms": 1500}, extra=policy + group(count))
    write_model(tmp_path, "m", config(2))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        assert infer(server, "m")[0] == 200
        write_model(tmp_path, "m", config(1))
        assert load(server, "m") == (200, "")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running = pool.submit(infer, server, "m")
            time.sleep(0.3)
            start = time.monotonic()
            status, body = infer(server, "m")
            assert status == 503 and time.monotonic() - start < 1, body
            assert running.result()[0] == 200


def test_changes_in_place_under_load_lose_nothing(tmp_path):
    write_model(tmp_path, "m", identity("m", extra="dynamic_batching { }\n" + group(1)))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        done = threading.Event()

        def ask():
            answered = 0
            while not done.is_set():
                assert infer(server, "m", value=answered)[0] == 200
                answered += 1
            return answered
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            try:
                for count in [1 + number % 5 for number in range(50)]:
                    write_model(tmp_path, "m", identity("m", extra="dynamic_batching { }\n" + group(count)))
                    assert load(server, "m") == (200, "")
            finally:
                done.set()
            total = sum(one.result() for one in asking)
        assert successes(server, "m") == total


def sums(strategy, extra):
    """Running sums of a sequence, which the instance holds."""
    controls = "".join(
        f'control_input {{ name: "{name}" control {{ kind: CONTROL_SEQUENCE_{name} int32_false_true: [ 0, 1 ] }} }}\n'
        for name in ("START", "END", "READY"))
    controls += 'control_input { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }\n'
    return ('backend: "sequence"\nmax_batch_size: 2\n' + io("input", "INPUT", "INT32", "1") + io("output", "OUTPUT", "INT32", "1")
            + f"sequence_batching {{ {strategy}\n max_sequence_idle_microseconds: 20000000\n{controls} }}\n{extra}")


@pytest.mark.parametrize("strategy", ["direct { }", "oldest { max_candidate_sequences: 2 }"])
def test_sequences_survive_a_change_of_instances(tmp_path, strategy):
    sample = ('model_warmup { name: "s" batch_size: 2 inputs { key: "INPUT" value { data_type: TYPE_INT32 dims: [ 1 ] '
              "random_data: true } } }\n")
    write_model(tmp_path, "m", sums(strategy, sample + group(3)))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        def send(sequence, value, start=False, end=False):
            parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
            body = {"parameters": parameters,
                    "inputs": [{"name": "INPUT", "datatype": "INT32", "shape": [1, 1], "data": [value]}]}
            status, _, answer = server.raw("POST", "/v2/models/m/infer", json.dumps(body).encode())
            assert status == 200, answer
            return json.loads(answer)["outputs"][0]["data"][0]

        # Six sequences fill the slots of all three instances.
        assert [send(n, n, start=True) for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
        write_model(tmp_path, "m", sums(strategy, sample + group(1)))
        assert load(server, "m") == (200, "")
        assert [send(n, 1) for n in range(1, 7)] == [2, 3, 4, 5, 6, 7], "also those of instances that are to go"
        assert [send(n, 1, end=True) for n in range(1, 7)] == [3, 4, 5, 6, 7, 8]
        write_model(tmp_path, "m", sums(strategy, sample + group(2)))
        assert load(server, "m") == (200, "")
        assert [send(n, n, start=True) for n in range(11, 15)] == [11, 12, 13, 14], "the new ones have slots, too"
        assert [send(n, 1, end=True) for n in range(11, 15)] == [12, 13, 14, 15]
        assert successes(server, "m") == 26, "never reloaded"
        assert server.stop() == 0


# Dependencies

def ensemble(name, *steps):
    """Each step reads the tensor of the one before."""
    text = f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: 8\n'
    text += io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1") + "ensemble_scheduling {\n"
    for number, step in enumerate(steps):
        model, version = step if isinstance(step, tuple) else (step, -1)
        read = "INPUT0" if number == 0 else f"T{number}"
        made = "OUTPUT0" if number == len(steps) - 1 else f"T{number + 1}"
        text += f'step {{ model_name: "{model}" model_version: {version}\n'
        text += f'  input_map {{ key: "INPUT0" value: "{read}" }}\n  output_map {{ key: "OUTPUT0" value: "{made}" }} }}\n'
    return text + "}\n"


def reason(server, model):
    return " ".join(line.get("reason", "") for (name, _), line in index(server).items() if name == model)


def test_an_ensemble_whose_step_is_missing_says_which(tmp_path):
    write_model(tmp_path, "a", identity("a", batch=8))
    write_model(tmp_path, "e", ensemble("e", "a", "nowhere"))
    write_model(tmp_path, "v", ensemble("v", ("a", 7)))
    with Server(tmp_path, "--exit-on-error=false") as server:
        assert "ensemble 'e' depends on 'nowhere' (step 1), which is not available" in reason(server, "e")
        assert "ensemble 'v' depends on 'a' version 7 (step 0), which is not available" in reason(server, "v")
        assert state(server, "e") == "UNAVAILABLE" and state(server, "a") == "READY" and not ready(server)


def test_ensembles_in_a_circle_are_named(tmp_path):
    write_model(tmp_path, "one", ensemble("one", "two"))
    write_model(tmp_path, "two", ensemble("two", "three"))
    write_model(tmp_path, "three", ensemble("three", "one"))
    write_model(tmp_path, "good", identity("good"))
    with Server(tmp_path, EXPLICIT, "--load-model=good") as server:
        status, error = load(server, "two")
        assert status == 400 and "'two' -> 'three' -> 'one' -> 'two' need each other in a circle" in error
        assert infer(server, "good")[0] == 200


def test_an_ensemble_loads_its_steps_first(tmp_path):
    for name in ("a", "b", "c"):
        write_model(tmp_path, name, identity(name, batch=8))
    write_model(tmp_path, "e", ensemble("e", "a", "b"))
    with Server(tmp_path, EXPLICIT) as server:
        load(server, "e")
        assert (state(server, "a"), state(server, "b"), state(server, "c")) == ("READY", "READY", None)


def all_states(server):
    lines = index(server).items()
    return {name: line["state"] for (name, _), line in lines if line.get("state", "UNAVAILABLE") != "UNAVAILABLE"}


def test_an_ensemble_follows_its_steps(tmp_path):
    for name in ("a", "b", "c"):
        write_model(tmp_path, name, identity(name, batch=8))
    write_model(tmp_path, "e", ensemble("e", "a", "b"))
    write_model(tmp_path, "top", ensemble("top", "e", "c"))
    with Server(tmp_path, EXPLICIT) as server:
        load(server, "top")
        everything = dict.fromkeys(("a", "b", "c", "e", "top"), "READY")
        assert all_states(server) == everything and ready(server)
        unload(server, "a")
        eventually(lambda: all_states(server) == dict.fromkeys(("b", "c"), "READY"))
        assert "ensemble 'e' depends on 'a' (step 0)" in reason(server, "e")
        assert ready(server), "what goes with a model that was unloaded on purpose does not count"
        assert "ensemble 'top' depends on 'e' (step 0)" in reason(server, "top")
        assert load(server, "a") == (200, "")
        assert all_states(server) == everything and ready(server)
        # A step that changes is followed; one that breaks leaves all as it is.
        write_model(tmp_path, "b", 'backend: "nowhere"\n')
        assert load(server, "b")[0] == 400 and all_states(server) == everything
        write_model(tmp_path, "b", identity("b", batch=8, extra="dynamic_batching { }\n"))
        assert load(server, "top") == (200, "") and all_states(server) == everything
        assert json.loads(server.raw("GET", "/v2/models/b/config")[2])["dynamic_batching"]

        # Without a word about the steps they stay; c was asked for by its own name.
        assert load(server, "c") == (200, "")
        unload(server, "top")
        eventually(lambda: all_states(server) == dict.fromkeys(("a", "b", "c", "e"), "READY"))
        assert load(server, "top") == (200, "")
        unload(server, "top", dependents=True)
        # a was asked for above, when e was without it, and b when it broke.
        eventually(lambda: all_states(server) == dict.fromkeys(("a", "b", "c"), "READY"))
        assert ready(server)


def test_an_ensemble_that_its_steps_no_longer_fit_goes(tmp_path):
    """Also if the ensemble, which itself has not changed, is what is loaded, and one above it has been loaded anew."""
    fits = identity("s", batch=8)
    other = fits.replace("INPUT0", "OTHER")
    assert other != fits
    e, top = ensemble("e", "s"), ensemble("top", "e")
    for name, text in (("s", fits), ("e", e), ("top", top)):
        write_model(tmp_path, name, text)
    with Server(tmp_path, EXPLICIT) as server:
        for named in ("e", "top", "changed top"):
            model = named.split()[-1]
            assert load(server, "top") == (200, "") and infer(server, "top")[0] == 200
            write_model(tmp_path, "s", other)
            if named != model:
                write_model(tmp_path, "top", top + f'parameters {{ key: "k" value {{ string_value: "v" }} }}\n')
            status, error = load(server, model)
            assert status == 400 and f"load failed for model '{model}'" in error, (named, error)
            assert all_states(server) == {"s": "READY"}, named
            assert "mapping to non-existing input INPUT0 in model s" in reason(server, "e")
            assert "ensemble 'top' depends on 'e' (step 0)" in reason(server, "top")
            assert load(server, model)[0] == 400, "as long as it does not fit"
            write_model(tmp_path, "s", fits)
            assert load(server, "s") == (200, "")
            assert all_states(server) == dict.fromkeys(("s", "e", "top"), "READY"), named
            assert infer(server, "e")[0] == infer(server, "top")[0] == 200
        # What changes and fits is followed.
        write_model(tmp_path, "s", identity("s", batch=8, extra="dynamic_batching { }\n"))
        assert load(server, "e") == (200, "") and infer(server, "top")[0] == 200


def test_steps_that_others_need_stay(tmp_path):
    for name in ("a", "b"):
        write_model(tmp_path, name, identity(name, batch=8))
    write_model(tmp_path, "e", ensemble("e", "a", "b"))
    write_model(tmp_path, "f", ensemble("f", "b"))
    with Server(tmp_path, EXPLICIT) as server:
        load(server, "e")
        assert load(server, "f") == (200, "")
        unload(server, "e", dependents=True)
        eventually(lambda: all_states(server) == {"b": "READY", "f": "READY"})
        unload(server, "f", dependents=True)
        eventually(lambda: all_states(server) == {})
        assert ready(server)


def test_poll_follows_the_steps_of_ensembles(tmp_path):
    write_model(tmp_path, "e", ensemble("e", "a"))
    write_model(tmp_path, "b", identity("b", batch=8))
    with Server(tmp_path, *POLL, "--exit-on-error=false") as server:
        assert "depends on 'a' (step 0)" in reason(server, "e")
        write_model(tmp_path, "a", identity("a", batch=8))
        eventually(lambda: state(server, "a") == "READY")
        eventually(lambda: all_states(server) == dict.fromkeys("abe", "READY"))
        shutil.rmtree(tmp_path / "a")
        eventually(lambda: all_states(server) == {"b": "READY"})
        assert "depends on 'a' (step 0)" in reason(server, "e")
        write_model(tmp_path, "e", ensemble("e", "b"))
        eventually(lambda: all_states(server) == dict.fromkeys("be", "READY"))
        # Both change in one poll: the ensemble is not only held against its new step.
        write_model(tmp_path, "b", identity("b", batch=4))
        write_model(tmp_path, "e", ensemble("e", "b").replace("max_batch_size: 8", "max_batch_size: 4"))
        eventually(lambda: json.loads(server.raw("GET", "/v2/models/e/config")[2])["max_batch_size"] == 4)
        eventually(lambda: all_states(server) == dict.fromkeys("be", "READY"))
        server.alive()


# Warm-up and labels

def warmup(name, data, count=1, batch=1):
    return (f'model_warmup {{ name: "{name}" batch_size: {batch} count: {count} inputs {{ key: "INPUT0" '
            f'value {{ data_type: TYPE_FP32 dims: [ 2 ] {data} }} }} }}\n')


def test_warm_up_runs_on_every_instance_before_the_model_is_ready(tmp_path):
    extra = warmup("zeros", "zero_data: true", count=2, batch=4) + warmup("random", "random_data: true")
    extra += warmup("file", 'input_data_file: "data"') + warmup("none", "zero_data: true", batch=0) + group(2)
    directory = write_model(tmp_path, "m", identity("m", extra=extra, parameters={"execute_delay_ms": 200}))
    (directory / "warmup").mkdir()
    (directory / "warmup" / "data").write_bytes(struct.pack("<2f", 1, 2))
    with Server(tmp_path, EXPLICIT, "--log-verbose=1") as server:
        start = time.monotonic()
        assert load(server, "m") == (200, "")
        assert 0.8 <= time.monotonic() - start < 1.6, "4 executions of 200 ms, both instances at once"
        assert "'none' has batch_size 0 and is skipped" in server.output()
        assert successes(server, "m") == 0, "not counted"
        (directory / "warmup" / "data").write_bytes(b"123")
        status, error = load(server, "m")
        assert status == 400 and "failed to run warmup sample 'file': " in error
        assert state(server, "m") == "READY" and infer(server, "m")[0] == 200


def test_a_warm_up_that_fails_fails_the_load(tmp_path):
    for fault in ("panic_execute", "drop", "late_drop"):
        write_model(tmp_path, fault, f'name: "{fault}"\nbackend: "hostile"\nmax_batch_size: 8\n'
                    + io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1")
                    + f'parameters {{ key: "fault" value {{ string_value: "{fault}" }} }}\n'
                    + warmup("first", "zero_data: true"))
    with Server(tmp_path, EXPLICIT) as server:
        for fault in ("panic_execute", "drop", "late_drop"):
            status, error = load(server, fault)
            assert status == 400 and "failed to run warmup sample 'first': " in error, error
            assert state(server, fault) == "UNAVAILABLE"


def test_labels_are_read_at_load(tmp_path):
    labelled = identity("m").replace('name: "OUTPUT0"', 'name: "OUTPUT0" label_filename: "labels.txt"')
    directory = write_model(tmp_path, "m", labelled)
    with Server(tmp_path, EXPLICIT) as server:
        status, error = load(server, "m")
        assert status == 400 and "labels of output 'OUTPUT0'" in error and "labels.txt" in error
        (directory / "labels.txt").write_text("cat\ndog\n")
        assert load(server, "m") == (200, "")
        write_model(tmp_path, "m", labelled.replace("labels.txt", "../labels.txt"))
        status, error = load(server, "m")
        assert status == 400 and "leaves the model's directory" in error


# Index, start, end

def test_the_index_follows_the_repository(tmp_path):
    write_model(tmp_path, "a", identity("a"))
    with Server(tmp_path, EXPLICIT) as server:
        assert index(server) == {("a", None): {"name": "a"}}
        write_model(tmp_path, "b", identity("b"))
        assert index(server) == {("a", None): {"name": "a"}, ("b", None): {"name": "b"}}
        unload(server, "b")
        status, _, _ = server.raw("POST", "/v2/repository/models/nowhere/unload", b"")
        assert status == 200, "as upstream: it is not loaded"
        assert load(server, "b") == (200, "")
        lines = json.loads(server.raw("POST", "/v2/repository/index", b'{"ready": true}')[2])
        assert lines == [{"name": "b", "version": "1", "state": "READY"}]
        unload(server, "b")
        eventually(lambda: state(server, "b") == "UNAVAILABLE")
        assert index(server)[("b", "1")]["reason"] == "unloaded" and ready(server)


def test_a_model_that_fails_at_start(tmp_path):
    write_model(tmp_path, "good", identity("good"))
    write_model(tmp_path, "bad", 'backend: "nowhere"\n')
    with Server(tmp_path, wait=False) as server:
        assert server.process.wait(20) == 1 and "failed to load all models" in server.output()
    with Server(tmp_path, "--exit-on-error=false") as server:
        assert not ready(server) and server.raw("GET", "/v2/health/live")[0] == 200
        assert server.raw("GET", "/v2/models/bad/ready")[0] == 400 and infer(server, "good")[0] == 200
    with Server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        assert ready(server)
    flags = (EXPLICIT, "--load-model=good", "--load-model=missing")
    with Server(tmp_path, *flags, wait=False) as server:
        assert server.process.wait(20) == 1 and "missing" in server.output()
    with Server(tmp_path, *flags, "--exit-on-error=false") as server:
        assert not ready(server) and infer(server, "good")[0] == 200
        write_model(tmp_path, "missing", identity("missing"))
        assert load(server, "missing") == (200, "") and ready(server)


def test_an_unload_under_load_loses_nothing(tmp_path):
    write_model(tmp_path, "m", identity("m", parameters={"execute_delay_ms": 100}))
    with Server(tmp_path, EXPLICIT, "--load-model=m") as server:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(infer, server, "m") for _ in range(12)]
            eventually(lambda: successes(server, "m") >= 1)
            time.sleep(0.2)
            unload(server, "m")
            assert infer(server, "m")[0] == 404
            assert state(server, "m") == "UNLOADING"
            assert {one.result()[0] for one in asked} == {200}
        eventually(lambda: state(server, "m") == "UNAVAILABLE")


def test_an_end_that_takes_too_long(tmp_path):
    write_model(tmp_path, "m", identity("m", parameters={"execute_delay_ms": 20000}))
    with Server(tmp_path, "--exit-timeout-secs=1") as server:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: pytest.raises(Exception, infer, server, "m"))
            time.sleep(0.5)
            start = time.monotonic()
            assert server.stop() == 3 and time.monotonic() - start < 5
            assert "Exit timeout expired. Exiting immediately." in server.output()


def test_the_end_comes_in_the_middle_of_polls_and_loads(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, *POLL) as server:
        write_model(tmp_path, "slow", identity("slow", parameters={"creation_delay_sec": 2}))
        eventually(lambda: state(server, "slow") == "LOADING")
        assert server.stop() == 0
