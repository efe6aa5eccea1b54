"""Models that load and unload other models: a backend in Rust (`caller`) and models in Python."""
import concurrent.futures
import json
import pathlib
import random
import re
import sys
import time

import pytest
from test_lifecycle import eventually, index, infer, json_config, load, state, unload
from test_python import COUNT, PYTHON, count, method, put
from trireme_server import Server, identity, io, write_model

EXPLICIT = "--model-control-mode=explicit"


def parent(name, extra="", **parameters):
    """A model that does to others what requests say, and what its parameters `first` and `last` say."""
    parameters = {"model": "child", "mode": "then", **parameters}
    return identity(name, extra=extra, parameters=parameters).replace('"identity"', '"caller"', 1)


def chain(name, *models):
    """An ensemble of models one after the other."""
    step = '{{ model_name: "{}" model_version: -1 input_map {{ key: "INPUT0" value: "{}" }} output_map {{ key: "OUTPUT0" value: "{}" }} }}'
    tensors = ["INPUT0", *(f"x{at}" for at in range(1, len(models))), "OUTPUT0"]
    steps = ", ".join(step.format(model, *tensors[at:at + 2]) for at, model in enumerate(models))
    return identity(name).replace('backend: "identity"', 'platform: "ensemble"') + f"ensemble_scheduling {{ step [ {steps} ] }}"


def tell(server, model, what, of, timeout=30, **parameters):
    """Has a model do something to another one: what it answers, or the error."""
    body = {"parameters": {"do": what, "of": of, **parameters},
            "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1], "data": [0]}]}
    status, _, answer = server.raw("POST", f"/v2/models/{model}/infer", json.dumps(body).encode(), timeout=timeout)
    answer = json.loads(answer)
    return answer["outputs"][0]["data"][0] == 1 if status == 200 else (status, answer["error"])


def is_ready(server, model, version=""):
    path = f"/v2/models/{model}/versions/{version}/ready" if version else f"/v2/models/{model}/ready"
    return server.raw("GET", path)[0] == 200


@pytest.fixture(params=["0", "1"], ids=["plain", "checked"])
def server(tmp_path, request):
    write_model(tmp_path, "child", identity("child"), versions=(1, 2))
    write_model(tmp_path, "parent", parent("parent"))
    write_model(tmp_path, "eager", parent("eager", first="child", last="child"))
    write_model(tmp_path, "itself", parent("itself", first="itself"))
    write_model(tmp_path, "ping", parent("ping", first="pong"))
    write_model(tmp_path, "pong", parent("pong", first="ping"))
    write_model(tmp_path, "broken", 'backend: "identity"\nmax_batch_sise: 1\n')
    flags = (EXPLICIT, "--load-model=parent", "--model-load-thread-count=1")
    with Server(tmp_path, *flags, env={"TRIREME_ABI_CHECK": request.param}) as server:
        yield server
        assert server.process.poll() is None and "broke the rule" not in server.output(), server.output()


def test_a_model_loads_asks_for_and_unloads_another(server):
    for how in ("load", "load_later"):
        assert tell(server, "parent", "ready", "child") is False
        assert tell(server, "parent", how, "child") is True
        assert is_ready(server, "child") and tell(server, "parent", "ready", "child") is True
        assert tell(server, "parent", "unload", "child") is True
        assert not is_ready(server, "child")
    assert tell(server, "parent", "ready", "nobody") is False
    assert tell(server, "parent", "unload", "nobody") is True


def test_a_load_may_bring_configuration_and_files(server):
    assert tell(server, "parent", "load", "made", config=json_config(name="made"), file="x" * 100_000) is True
    assert is_ready(server, "made", "1")
    assert tell(server, "parent", "load", "child", config=json_config(version_policy={"specific": {"versions": [2]}})) is True
    assert (state(server, "child", "1"), state(server, "child", "2")) == (None, "READY")


@pytest.mark.parametrize("of, more, says", [
    ("nobody", {}, "failed to load 'nobody', failed to poll from model repository"),
    ("broken", {}, "max_batch_sise"),
    ("child", {"file": "x"}, "'config' must be specified for model file override"),
    ("child", {"config": "{"}, "child"),
    ("../child", {}, "not a model's name"),
])
def test_a_load_that_fails_says_why(server, of, more, says):
    status, error = tell(server, "parent", "load", of, **more)
    assert says in error and status in (400, 500), (status, error)


def test_a_model_loads_what_it_needs_and_takes_it_away(server):
    assert load(server, "eager") == (200, "")
    assert is_ready(server, "child")
    unload(server, "eager")
    eventually(lambda: not is_ready(server, "child"))


def test_loads_that_wait_for_themselves_are_refused(server):
    status, error = load(server, "itself")
    assert status == 400 and "model 'itself' cannot have 'itself' changed now" in error, error
    status, error = load(server, "ping")
    assert status == 400 and "model 'pong' cannot have 'ping' changed now" in error, error
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [result for result in pool.map(lambda name: load(server, name), ("ping", "pong"))]
    assert all(status == 400 and "cannot have" in error for status, error in both), both
    assert load(server, "child") == (200, "")


def test_a_model_changes_itself(server):
    changed = {"backend": "caller", "max_batch_size": 64, "instance_group": [{"count": 3, "kind": "KIND_CPU"}]}
    for count in (3, 1):
        changed["instance_group"][0]["count"] = count
        begun = time.monotonic()
        tensors = json.loads(json_config())
        whole = {**tensors, **changed, "parameters": {k: {"string_value": v} for k, v in (("model", "child"), ("mode", "then"))}}
        assert tell(server, "parent", "load", "parent", config=json.dumps(whole)) is True
        assert time.monotonic() - begun < 5, "nobody waits for the execution that waits"
    assert tell(server, "parent", "unload", "parent") is True
    eventually(lambda: state(server, "parent") == "UNAVAILABLE")


def test_it_takes_explicit_control(tmp_path):
    write_model(tmp_path, "child", identity("child"))
    write_model(tmp_path, "parent", parent("parent"))
    with Server(tmp_path) as server:
        for what in ("load", "unload"):
            status, error = tell(server, "parent", what, "child")
            assert (status, error) == (503, "explicit model load / unload is not allowed if polling is enabled")
        assert tell(server, "parent", "ready", "child") is True


def test_operations_of_every_kind_at_once_come_to_an_end(tmp_path):
    """Loads of clients and of models, of ensembles above both, with one place for parallel loads."""
    write_model(tmp_path, "child", identity("child"))
    write_model(tmp_path, "parent", parent("parent"))
    for n in range(3):
        write_model(tmp_path, f"eager{n}", parent(f"eager{n}", first="child" if n else "eager1", last="child"))
    write_model(tmp_path, "above", chain("above", "child", "eager2"))
    models = ["child", "eager0", "eager1", "eager2", "above"]
    with Server(tmp_path, EXPLICIT, "--load-model=parent", "--model-load-thread-count=1") as server:
        def work(seed):
            rng = random.Random(seed)
            for _ in range(25):
                model = rng.choice(models)
                match rng.randrange(4):
                    case 0:
                        load(server, model)
                    case 1:
                        unload(server, model)
                    case 2:
                        tell(server, "parent", "load", model, timeout=60)
                    case 3:
                        tell(server, "parent", "unload", model, timeout=60)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        for model in ("child", "eager1", "eager0"):
            assert load(server, model) == (200, ""), server.output()[-3000:]
        assert server.stop() == 0


def test_an_ensemble_that_became_a_model_waits_for_its_own_load(tmp_path):
    """It went with its step, and nobody has asked for the model that its directory holds now."""
    for name in ("step", "child", "other"):
        write_model(tmp_path, name, identity(name))
    write_model(tmp_path, "above", chain("above", "step"))
    with Server(tmp_path, EXPLICIT) as server:
        assert load(server, "above") == (200, "")
        unload(server, "step")
        eventually(lambda: not is_ready(server, "above"))
        (tmp_path / "above" / "config.pbtxt").write_text(parent("above", first="child"))
        for name in ("step", "other"):
            assert load(server, name) == (200, "")
        unload(server, "other")
        assert not is_ready(server, "above") and not is_ready(server, "child")
        assert load(server, "above") == (200, "") and is_ready(server, "child")
        # The same for one that serves as an ensemble while its directory becomes a model.
        unload(server, "above")
        (tmp_path / "above" / "config.pbtxt").write_text(chain("above", "step"))
        assert load(server, "above") == (200, "")
        (tmp_path / "above" / "config.pbtxt").write_text(parent("above", first="child"))
        write_model(tmp_path, "step", identity("step"), versions=(1, 2))
        assert load(server, "step") == (200, "")
        assert infer(server, "above")[0] == 200, "it serves as the ensemble that was loaded"
        assert server.stop() == 0


# Models in Python

ARGUMENTS = """
bad = [(TypeError, lambda: pb_utils.load_model(7)), (TypeError, lambda: pb_utils.load_model("child", None)),
       (TypeError, lambda: pb_utils.unload_model(None)), (TypeError, lambda: pb_utils.is_model_ready("child", 1)),
       (TypeError, lambda: pb_utils.load_model("child", CONFIG, {"file:1/data": "text"}))]
for files in (["file:1/data"], {"1/data": b""}, {"file:../data": b""}, {"file:1/data": b""}, {7: b""}):
    bad.append((pb_utils.TritonModelException, lambda files=files: pb_utils.load_model("child", CONFIG * (files != {"file:1/data": b""}), files)))
bad.append((pb_utils.TritonModelException, lambda: pb_utils.load_model("child", " " * (1 << 20) + CONFIG)))
bad.append((pb_utils.TritonModelException, lambda: pb_utils.load_model("child", CONFIG, {f"file:1/{n}": b"" for n in range(1025)})))
for version in ("one", "-1", "1.0", "9" * 30):
    bad.append((pb_utils.TritonModelException, lambda version=version: pb_utils.is_model_ready("child", version)))
for kind, wrong in bad:
    try:
        wrong()
        raise AssertionError("nothing was raised")
    except kind as error:
        print("refused:", error, flush=True)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    repository = tmp_path_factory.mktemp("python-control")
    write_model(repository, "child", identity("child"), versions=(1, 2, 3))
    put(repository, "changes", method(f"""
CONFIG = {json_config(version_policy={"specific": {"versions": [2]}})!r}
{ARGUMENTS}
ready = lambda *which: pb_utils.is_model_ready(*which)
assert not ready("child") and not ready("nobody")
pb_utils.load_model("child")
assert ready("child") and ready("child", "3") and not ready("child", "1"), "the newest version only"
pb_utils.load_model(model_name="child", config=CONFIG)
assert ready("child", "2") and not ready("child", "3")
try:
    pb_utils.load_model("child", config='{{"version_policy": ')
    raise AssertionError("half a configuration was taken")
except pb_utils.TritonModelException as error:
    assert "child" in str(error), error
assert ready("child", "2"), "a load that fails changes nothing"
pb_utils.load_model("made", CONFIG.replace("[2]", "[1]"), {{"file:1/large": bytes(3 << 20), "file:1/empty": b"", "file:note": bytearray(b"x")}})
assert ready("made", "1") and ready("child", "2")
pb_utils.unload_model("made", unload_dependents=True)
pb_utils.unload_model("child")
assert not ready("made") and not ready("child", "2")
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy())]) for request in requests]
"""), COUNT)
    # As upstream's page does it, and the reverse at the end.
    put(repository, "prepares", method("""
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy())]) for request in requests]
""", more="""def initialize(self, args):
        if not pb_utils.is_model_ready(model_name="child", model_version="3"):
            pb_utils.load_model(model_name="child")
        assert pb_utils.is_model_ready("child")

    def finalize(self):
        pb_utils.unload_model("child")
        print("the child is ready:", pb_utils.is_model_ready("child"), flush=True)
"""), COUNT, extra="instance_group { count: 2 kind: KIND_CPU }\n")
    put(repository, "completes", method("return []", more="""@staticmethod
    def auto_complete_config(config):
        pb_utils.load_model("completes")
        return config
"""), COUNT)
    put(repository, "fails", method("return []", more="""def initialize(self, args):
        pb_utils.load_model("child")
        raise pb_utils.TritonModelException("as it should")
"""), COUNT)
    put(repository, "async", method("""
def work():
    pb_utils.load_model("child")
await asyncio.gather(*[asyncio.to_thread(work) for _ in range(4)])
pb_utils.unload_model("async")
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy())]) for request in requests]
""", "async def execute(self, requests):"), COUNT)
    put(repository, "warms", method("""
pb_utils.load_model("child")
try:
    pb_utils.load_model("warms")
    said = 1
except pb_utils.TritonModelException as error:
    assert "model 'warms' cannot have 'warms' changed now" in str(error), error
    said = 0
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([said], np.int32))]) for _ in requests]
"""), COUNT, extra='model_warmup { name: "w" batch_size: 1 inputs { key: "IN" value { data_type: TYPE_INT32 dims: 1 zero_data: true } } }\n')
    put(repository, "returns", method("return []", more="""def finalize(self):
        try:
            pb_utils.load_model("child")
        except pb_utils.TritonModelException as error:
            print("at the end:", error, flush=True)
"""), COUNT)
    return repository


@pytest.fixture()
def served(python):
    with Server(python, PYTHON, EXPLICIT) as server:
        yield server
        assert server.process.poll() is None, server.output()


def test_a_python_model_changes_others(served):
    assert load(served, "changes") == (200, "")
    for _ in range(2):
        assert count(served, "changes", 5) == 5
    log = served.output()
    for says in ("model_name must be a str, found int", "config must be a str, found NoneType", "files must be a dict",
                 "the path of a file begins with 'file:', found '1/data'", "found 7", "must be bytes, found str",
                 "must name a file inside the model's directory", "'config' must be specified for model file override",
                 "a load whose configuration and paths of files take 1048", "a load with 1025 files; at most 1024 are possible",
                 "model_version must be a whole number above 0, found '1.0'"):
        assert says in log, says


sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "peers"))
import model_control  # noqa: E402


def test_a_python_model_is_told_what_tritonserver_tells_it(tmp_path):
    model_control.write(tmp_path)
    with Server(tmp_path, PYTHON, EXPLICIT) as server:
        ours, theirs = model_control.ask(server), json.loads(model_control.RECORD.read_text())
    assert ours.keys() == theirs.keys() == {"initialize", "execute"}
    for where, outcomes in theirs.items():
        assert len(outcomes) == len(model_control.CALLS)
        different = [pair for pair in zip(ours[where], outcomes) if pair[0] != pair[1]]
        # A file that would not be seen is an error here.
        call = model_control.DIFFERS
        assert different == [([call, "TritonModelException"], [call, None])], (where, different)


def test_a_python_model_prepares_another_and_takes_it_away(served):
    assert load(served, "prepares") == (200, "")
    assert is_ready(served, "child") and count(served, "prepares", 3) == 3
    unload(served, "prepares")
    eventually(lambda: served.output().count("the child is ready: False") == 2)
    assert not is_ready(served, "child")


def test_a_python_model_whose_load_fails_leaves_what_it_loaded(served):
    status, error = load(served, "fails")
    assert status == 400 and "as it should" in error
    assert is_ready(served, "child")
    status, error = load(served, "completes")
    assert status == 400 and "Failed to load model: model 'completes' cannot have 'completes' changed now" in error


def test_a_python_model_loads_another_while_it_is_warmed_up(served):
    assert load(served, "warms") == (200, "")
    assert is_ready(served, "child")


def test_a_python_model_works_on_threads_and_unloads_itself(served):
    assert load(served, "async") == (200, "")
    assert count(served, "async", 7) == 7
    eventually(lambda: state(served, "async") == "UNAVAILABLE")
    assert is_ready(served, "child")


def slow(repository, name, go, tensors=COUNT, batch=0, least=0):
    """A model in Python whose load ends when there is a file `go`, after `least` seconds."""
    put(repository, name, method("return []", more=f"""def initialize(self, args):
        print("BEGIN", args["model_name"], flush=True)
        time.sleep({least})
        while not os.path.exists({str(go)!r}):
            time.sleep(0.01)
        print("END", args["model_name"], flush=True)
"""), tensors, batch)


def test_a_model_that_serves_waits_for_the_load_that_it_is_no_part_of(tmp_path):
    """An ensemble is loaded above it: it and the other step are as they should be, the third is on its way."""
    repository, go = tmp_path / "models", tmp_path / "go"
    for name in ("child", "spare"):
        write_model(repository, name, identity(name))
    write_model(repository, "parent", parent("parent"))
    slow(repository, "slow", go, io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1"), 64)
    write_model(repository, "above", chain("above", "parent", "child", "slow"))
    with Server(repository, PYTHON, EXPLICIT, "--load-model=parent", "--load-model=child") as server:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            above = pool.submit(load, server, "above")
            eventually(lambda: "BEGIN slow" in server.output())
            spare = tell(server, "parent", "load", "spare")
            waiting = [pool.submit(tell, server, "parent", what, of) for what, of in (("load", "child"), ("load", "parent"), ("unload", "parent"))]
            done, _ = concurrent.futures.wait(waiting, 0.5)
            go.touch()
            assert not done, [one.result() for one in done]
            assert [spare, *(one.result() for one in waiting)] == [True] * 4
            above.result()
        assert server.stop() == 0


def test_a_model_that_serves_is_never_told_that_it_waits_for_itself(tmp_path):
    """A client loads it anew: whether the old one or the new one asks, nobody can tell."""
    repository, go = tmp_path / "models", tmp_path / "go"
    write_model(repository, "child", identity("child"))
    put(repository, "asks", method("""
try:
    pb_utils.load_model("asks")
    said = "nothing"
except pb_utils.TritonModelException as error:
    said = str(error)
pb_utils.load_model("child")
print("SAID", said, flush=True)
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy())]) for request in requests]
"""), COUNT)
    with Server(repository, PYTHON, EXPLICIT, "--load-model=asks") as server:
        slow(repository, "asks", go)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            anew = pool.submit(load, server, "asks")
            eventually(lambda: "BEGIN asks" in server.output())
            assert count(server, "asks", 3) == 3
            go.touch()
            assert re.search("SAID Failed to load model: .*a load that may wait for 'asks' changes it, too; try again", server.output()), server.output()
            assert is_ready(server, "child")
            assert anew.result() == (200, "")
        assert server.stop() == 0


def test_calls_of_a_load_make_one_place_for_others(tmp_path):
    """However many calls a load makes on threads, it has one place to give away while it waits."""
    repository, go = tmp_path / "models", tmp_path / "go"
    go.touch()
    others = [f"other{n}" for n in range(4)]
    for name in others:
        slow(repository, name, go, least=0.3)
    slow(repository, "late", tmp_path / "late")
    put(repository, "eager", method("return []", more="""def initialize(self, args):
        calls = [threading.Thread(target=pb_utils.load_model, args=("late",)) for _ in range(8)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
"""), COUNT)
    with Server(repository, PYTHON, EXPLICIT, "--model-load-thread-count=1") as server:
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            eager = pool.submit(load, server, "eager")
            eventually(lambda: "BEGIN late" in server.output())
            assert list(pool.map(lambda name: load(server, name), others)) == [(200, "")] * 4
            (tmp_path / "late").touch()
            assert eager.result() == (200, "")
        events = re.findall(r"(BEGIN|END) (other\d)", server.output())
        assert [what for what, _ in events] == ["BEGIN", "END"] * 4, events


def test_a_server_that_ends_loads_nothing(python):
    with Server(python, PYTHON, EXPLICIT, "--load-model=returns", "--load-model=prepares") as server:
        assert is_ready(server, "child"), "what is loaded at the start may load others, too"
        assert server.stop() == 0
        assert "at the end: Failed to load model: " in server.output() and "shutting down" in server.output(), server.output()


def test_without_explicit_control_a_python_model_may_only_ask(tmp_path, python):
    put(tmp_path, "asks", method("""
said = []
for change in (lambda: pb_utils.load_model("child"), lambda: pb_utils.unload_model("child")):
    try:
        change()
    except pb_utils.TritonModelException as error:
        said.append(str(error))
assert said == [f"Failed to {what} model: explicit model load / unload is not allowed if polling is enabled" for what in ("load", "unload")], said
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([pb_utils.is_model_ready("child")], np.int32))]) for _ in requests]
"""), COUNT)
    write_model(tmp_path, "child", identity("child"))
    with Server(tmp_path, PYTHON) as server:
        assert count(server, "asks", 0) == 1
