"""Models written in Python: the contract of `model.py`, each instance in a process of its own."""
import json
import os
import queue
import re
import signal
import sys
import tarfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from test_ensemble import stats
from test_lifecycle import eventually
from trireme_server import Server, identity, io, write_model

PYTHON = f"--backend-config=python,interpreter={sys.executable}"
HEAD = "import json, asyncio, threading, time, os, sys\nimport numpy as np\nimport triton_python_backend_utils as pb_utils\n"
VALUES = "name: \"{0}\"\nbackend: \"python\"\nmax_batch_size: {1}\n"
PAIR = "".join(io("input", f"INPUT{n}", "FP32", "4") + io("output", f"OUTPUT{n}", "FP32", "4") for n in (0, 1))
COUNT = io("input", "IN", "INT32", "1") + io("output", "OUT", "INT32", "1")
DECOUPLED = "model_transaction_policy { decoupled: true }\n"


def method(body, before="def execute(self, requests):", more=""):
    """A script whose class has one method with this body, and perhaps a line `more`."""
    lines = "\n".join("        " + line for line in body.strip().splitlines())
    return f"{HEAD}\nclass TritonPythonModel:\n    {before}\n{lines}\n    {more}\n"


def put(repository, name, script, config, batch=0, extra=""):
    return write_model(repository, name, VALUES.format(name, batch) + config + extra, files=[("1/model.py", script.encode())])


ADD_SUB = method("""
answers = []
for request in requests:
    a, b = (pb_utils.get_input_tensor_by_name(request, f"INPUT{n}").as_numpy() for n in (0, 1))
    answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", a + b), pb_utils.Tensor("OUTPUT1", a - b)]))
return answers
""")
IDENTITY = method("""
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", request.inputs()[0].as_numpy())]) for request in requests]
""")
# As many answers as IN says, each from a thread of its own making.
COUNT_DOWN = method("""
def answer(sender, count):
    for left in reversed(range(count)):
        sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([left], np.int32))]))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
for request in requests:
    count = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0])
    threading.Thread(target=answer, args=(request.get_response_sender(), count), daemon=True).start()
""")
ASK = """
answers = []
for request in requests:
    ask = pb_utils.InferenceRequest(model_name={model!r}, requested_output_names=["OUTPUT0"], inputs=request.inputs())
    answer = {call}
    if answer.has_error():
        raise pb_utils.TritonModelException(answer.error().message())
    answers.append(pb_utils.InferenceResponse(answer.output_tensors()))
return answers
"""
SUM = """
count = requests[0].inputs()[0]
ask = pb_utils.InferenceRequest(model_name="count_down", requested_output_names=["OUT"], inputs=[count])
total = 0
for answers in {answers}:
    for answer in answers:
        assert not answer.has_error(), answer.error().message()
        if answer.output_tensors():
            total += int(pb_utils.get_output_tensor_by_name(answer, "OUT").as_numpy()[0])
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([total]))])]
"""
ASYNC = "async def execute(self, requests):"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("python")
    put(repository, "add_sub", ADD_SUB, PAIR)
    put(repository, "batched", ADD_SUB, PAIR, 8, "dynamic_batching { max_queue_delay_microseconds: 20000 }\n")
    write_model(repository, "native", identity("native"))
    for dtype in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "STRING"):
        put(repository, f"identity_{dtype.lower()}", IDENTITY, io("input", "INPUT0", dtype, "-1, -1") + io("output", "OUTPUT0", dtype, "-1, -1"))
    put(repository, "count_down", COUNT_DOWN, COUNT, extra=DECOUPLED)
    put(repository, "count_down_async", method("""
for request in requests:
    sender = request.get_response_sender()
    for left in reversed(range(int(request.inputs()[0].as_numpy()[0]))):
        await asyncio.sleep(0)
        sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([left], np.int32))]))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
""", ASYNC), COUNT, extra=DECOUPLED)
    flat = io("input", "INPUT0", "FP32", "-1, -1") + io("output", "OUTPUT0", "FP32", "-1, -1")
    put(repository, "ask", method(ASK.format(model="identity_fp32", call="ask.exec()")), flat)
    put(repository, "ask_async", method(ASK.format(
        model="identity_fp32", call="(await asyncio.gather(*[ask.async_exec() for _ in range(5)]))[3]"), ASYNC), flat)
    put(repository, "ask_nobody", method(ASK.format(model="nobody", call="ask.exec()")), flat)
    put(repository, "ask_itself", method(ASK.format(model="ask_itself", call="ask.exec()")), flat)
    put(repository, "sum", method(SUM.format(answers="[ask.exec(decoupled=True)]")), COUNT)
    put(repository, "sum_async", method(SUM.format(
        answers="await asyncio.gather(ask.async_exec(decoupled=True), ask.async_exec(decoupled=True))"), ASYNC), COUNT)
    put(repository, "wrong_call", method(ASK.format(model="count_down", call="ask.exec()").replace("OUTPUT0", "OUT")), COUNT)
    write_model(repository, "auto", 'backend: "python"\nmax_batch_size: 0\n' + io("input", "INPUT1", "FP32", "4"), files=[("1/model.py", (ADD_SUB + """
    @staticmethod
    def auto_complete_config(config):
        for n in (0, 1):
            config.add_input({"name": f"INPUT{n}", "data_type": "TYPE_FP32", "dims": [4]})
            config.add_output({"name": f"OUTPUT{n}", "data_type": "TYPE_FP32", "dims": [4]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        return config
""").encode())])
    # Answers when it has seen a request as often as IN says, counting down.
    put(repository, "again", method("""
seen = self.__dict__.setdefault("seen", {})
answers = []
for request in requests:
    count = seen[request.request_id()] = seen.get(request.request_id(), 0) + 1
    if count < int(request.inputs()[0].as_numpy()[0]):
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        answers.append(None)
    else:
        answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([seen.pop(request.request_id())], np.int32))]))
return answers
"""), COUNT)
    put(repository, "again_decoupled", method("""
left = self.__dict__.setdefault("left", {})
for request in requests:
    count = left[request.request_id()] = left.get(request.request_id(), int(request.inputs()[0].as_numpy()[0])) - 1
    sender = request.get_response_sender()
    answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([count], np.int32))])
    if count:
        sender.send(answer)
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
    else:
        sender.send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""), COUNT, extra=DECOUPLED)
    put(repository, "again_wrong", method("""
requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([1], np.int32))]) for _ in requests]
"""), COUNT)
    put(repository, "codes", method("""
names = ["UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED"]
name = names[int(requests[0].inputs()[0].as_numpy()[0])]
return [pb_utils.InferenceResponse(error=pb_utils.TritonError("said " + name, getattr(pb_utils.TritonError, name)))]
"""), COUNT)
    put(repository, "raises", method("""
def inner():
    raise KeyError("what it looked for")
inner()
"""), COUNT)
    for name, result in (("short", "[]"), ("no_list", "7"), ("nothing", "None"), ("none_in_it", "[None]"), ("no_response", "[3]"),
                         ("wrong_type", "[pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.array([1.5]))])]"),
                         ("too_large", "[pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.array([2**40]))])]"),
                         ("wider", "[pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.array([2**20]))])]")):
        put(repository, name, method(f"return {result}"), COUNT)
    put(repository, "to_bool", method("return [pb_utils.InferenceResponse([pb_utils.Tensor('OUT', requests[0].inputs()[0].as_numpy())])]"),
        io("input", "IN", "FP16", "1") + io("output", "OUT", "BOOL", "1"))
    put(repository, "drops", method("return None"), COUNT, extra=DECOUPLED)
    put(repository, "late", method("""
def answer(sender):
    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([7], np.int32))]), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
for request in requests:
    threading.Timer(0.05, answer, [request.get_response_sender()]).start()
"""), COUNT)
    put(repository, "dies", method("""
if requests[0].inputs()[0].as_numpy()[0] == 13:
    os._exit(3)
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([os.getpid()], np.int32))])]
"""), COUNT)
    put(repository, "told", method("""
request = requests[0]
print("this is standard output")
print("this is standard error", file=sys.stderr)
pb_utils.Logger.log_warn("this is the logger")
said = {"id": request.request_id(), "correlation": request.correlation_id(), "parameters": json.loads(request.parameters()),
        "outputs": request.requested_output_names(), "dir": pb_utils.get_model_dir(), "cpu": request.inputs()[0].is_cpu(),
        "trace": request.trace().get_context(), "init": sorted(self.args)}
return [pb_utils.InferenceResponse([pb_utils.Tensor("SAID", np.array([json.dumps(said)], dtype=object))], parameters={"a": 1, "b": "two", "c": True})]
""", more="def initialize(self, args): self.args = args"), io("input", "IN", "INT32", "1") + io("output", "SAID", "STRING", "1"))
    put(repository, "measures", method("""
if not hasattr(self, "count"):
    self.count = pb_utils.MetricFamily("py_count", "Counted", pb_utils.MetricFamily.COUNTER).Metric({"model": "measures"})
    self.level = pb_utils.MetricFamily("py_level", "Level", pb_utils.MetricFamily.GAUGE).Metric()
self.count.increment(2)
self.level.set(40)
self.level.increment(-5)
refused = 0
for wrong in (lambda: self.count.increment(-1), lambda: self.count.set(1), lambda: self.level.observe(1),
              lambda: pb_utils.MetricFamily("py_level", "", pb_utils.MetricFamily.COUNTER),
              lambda: pb_utils.MetricFamily("no name", "", pb_utils.MetricFamily.GAUGE).Metric()):
    try:
        wrong()
    except pb_utils.TritonModelException:
        refused += 1
assert refused == 5, refused
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([self.count.value() * 1000 + self.level.value()], np.int32))])]
"""), COUNT)
    # Two instances, which count in one histogram.
    put(repository, "observes", method("""
for request in requests:
    self.took.observe(int(request.inputs()[0].as_numpy()[0]))
same = pb_utils.MetricFamily("py_took", "Taken", pb_utils.MetricFamily.HISTOGRAM).Metric({"model": "observes"}, [1, 2.5, 10])
time.sleep(0.05)
said = []
family = pb_utils.MetricFamily("py_other", "", pb_utils.MetricFamily.HISTOGRAM)
for wrong in (lambda: same.value(), lambda: same.increment(1), lambda: same.set(1), lambda: family.Metric(), lambda: family.Metric({}, []),
              lambda: family.Metric({}, [1, 1]), lambda: family.Metric({}, [2, 1]), lambda: family.Metric({}, [float("inf")]),
              lambda: family.Metric({}, range(100)), lambda: family.Metric({"le": "1"}, [1]),
              lambda: pb_utils.MetricFamily("py_took", "", pb_utils.MetricFamily.GAUGE)):
    try:
        wrong()
        said.append("nothing")
    except pb_utils.TritonModelException as error:
        said.append(str(error))
assert len(said) == 11 and all("py_" in text or "64" in text for text in said), said
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([len(said)], np.int32))]) for _ in requests]
""", more="""def initialize(self, args):
        self.took = pb_utils.MetricFamily("py_took", "Taken", pb_utils.MetricFamily.HISTOGRAM).Metric({"model": "observes"}, [1, 2.5, 10])
"""), COUNT, extra="instance_group { count: 2 kind: KIND_CPU }\n")
    put(repository, "waits", method("""
request = requests[0]
end = time.monotonic() + 20
while not request.is_cancelled() and time.monotonic() < end:
    time.sleep(0.005)
self.seen = getattr(self, "seen", 0) + request.is_cancelled()
print("cancelled", self.seen, flush=True)
return [pb_utils.InferenceResponse(error=pb_utils.TritonError("gave up", pb_utils.TritonError.CANCELLED))]
"""), COUNT)
    put(repository, "dlpack", method("""
taken = np.from_dlpack(requests[0].inputs()[0])
return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUTPUT0", taken)])]
"""), io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1"))
    put(repository, "bf16", method("""
tensor = requests[0].inputs()[0]
try:
    tensor.as_numpy()
except pb_utils.TritonModelException as error:
    assert "to_dlpack" in str(error)
return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUTPUT0", tensor.to_dlpack())])]
"""), io("input", "INPUT0", "BF16", "-1") + io("output", "OUTPUT0", "BF16", "-1"))
    (put(repository, "beside", "from .helper import FACTOR\nimport helper\n" + method("""
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy() * FACTOR * helper.FACTOR)]) for request in requests]
"""), COUNT) / "1" / "helper.py").write_text("FACTOR = 3\n")
    return repository


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository, PYTHON, "--model-control-mode", "explicit", "--load-model", "*") as server:
        yield server
        server.alive()


def tensors(module, values):
    names = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"}
    made = []
    for name, value in values.items():
        tensor = module.InferInput(name, list(value.shape), names.get(value.dtype.name) or value.dtype.name.upper())
        tensor.set_data_from_numpy(value)
        made.append(tensor)
    return made


def infer(server, model, module=httpclient, timeout=30, client=None, **values):
    port = server.http if module is httpclient else server.grpc
    options = {"network_timeout": timeout} if module is httpclient else {}
    client = client or module.InferenceServerClient(f"127.0.0.1:{port}", **options)
    return client.infer(model, tensors(module, values))


def count(server, model, value, **options):
    return int(infer(server, model, IN=np.array([value], np.int32), **options).as_numpy("OUT")[0])


def stream(server, model, **values):
    """Every answer of one request over a gRPC stream."""
    answers, out = queue.Queue(), []
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        client.async_stream_infer(model, tensors(grpcclient, values), enable_empty_final_response=True)
        while True:
            answer = answers.get(timeout=30)
            if isinstance(answer, Exception):
                raise answer
            if answer.as_numpy("OUT") is not None:
                out.append(int(answer.as_numpy("OUT")[0]))
            if answer.get_response().parameters["triton_final_response"].bool_param:
                return out


@pytest.mark.parametrize("model", ["add_sub", "auto"])
@pytest.mark.parametrize("module", [httpclient, grpcclient])
def test_add_sub(server, model, module):
    shape = (4,) if model == "add_sub" else (1, 4)
    a, b = np.arange(4, dtype=np.float32).reshape(shape), np.full(shape, 2, np.float32)
    answer = infer(server, model, module, INPUT0=a, INPUT1=b)
    assert np.array_equal(answer.as_numpy("OUTPUT0"), a + b) and np.array_equal(answer.as_numpy("OUTPUT1"), a - b)


def test_only_what_is_asked_for_is_sent(server):
    value = np.zeros(4, np.float32)
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
    wanted = [httpclient.InferRequestedOutput("OUTPUT1")]
    answer = client.infer("add_sub", tensors(httpclient, {"INPUT0": value, "INPUT1": value}), outputs=wanted)
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["OUTPUT1"]


def test_requests_are_batched(server):
    def one(n):
        value = np.full((1, 4), n, np.float32)
        assert np.array_equal(infer(server, "batched", INPUT0=value, INPUT1=value).as_numpy("OUTPUT0"), value * 2)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    entry = stats(server, "batched")
    assert entry["inference_count"] == 16 and entry["execution_count"] < 16


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("rows", [0, 3, 20000])
def test_every_type_comes_back(server, dtype, rows):
    model = "identity_" + dtype.replace("float", "fp")
    value = (np.arange(rows * 5).reshape(rows, 5) % (2 if dtype == "bool" else 100)).astype(dtype)
    back = infer(server, model, INPUT0=value).as_numpy("OUTPUT0")
    assert back.dtype == value.dtype and np.array_equal(back, value)


@pytest.mark.parametrize("size", [0, 1, 50000])
def test_strings(server, size):
    value = np.array([[b"", "zwölf".encode(), b"\x00\xff", b"x" * size]], dtype=object)
    assert np.array_equal(infer(server, "identity_string", INPUT0=value).as_numpy("OUTPUT0"), value)


def test_large_tensors_do_not_pile_up(server):
    """Shared memory is used again: the process and the server hold no more after 40 requests of 8 MB than after 10."""
    value = np.random.default_rng(0).random((1000, 2000), dtype=np.float32)
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
    held = []
    for number in range(40):
        back = infer(server, "identity_fp32", client=client, INPUT0=value).as_numpy("OUTPUT0")
        assert np.array_equal(back, value)
        files = [os.readlink(f"/proc/{server.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.process.pid}/fd")]
        held.append(sum("trireme-" in name for name in files))
    assert held[-1] == held[10], held


@pytest.mark.parametrize("model", ["count_down", "count_down_async"])
@pytest.mark.parametrize("size", [0, 1, 500])
def test_a_decoupled_model_answers_as_often_as_it_likes(server, model, size):
    assert stream(server, model, IN=np.array([size], np.int32)) == list(reversed(range(size)))


@pytest.mark.parametrize("model", ["ask", "ask_async"])
@pytest.mark.parametrize("shape", [(1, 3), (300, 400)])
def test_a_model_asks_another(server, model, shape):
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert np.array_equal(infer(server, model, INPUT0=value).as_numpy("OUTPUT0"), value)


def test_a_rescheduled_request_comes_again(server):
    outcomes = []

    def ask(number):
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=30) as client:
            answer = client.infer("again", tensors(httpclient, {"IN": np.array([number], np.int32)}), request_id=str(number))
            outcomes.append((number, int(answer.as_numpy("OUT")[0])))

    threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 2, 50, 300)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert sorted(outcomes) == [(number, number) for number in (1, 2, 50, 300)]
    with pytest.raises(InferenceServerException, match="Expected a None object in the execute function return list"):
        count(server, "again_wrong", 1)


def test_a_rescheduled_request_of_a_decoupled_model(server):
    assert stream(server, "again_decoupled", IN=np.array([100], np.int32)) == list(reversed(range(100)))


def test_a_model_asks_a_decoupled_one(server):
    assert count(server, "sum", 5) == 10
    assert count(server, "sum_async", 5) == 20


@pytest.mark.parametrize("model, says", [
    ("ask_nobody", "unknown model: 'nobody'"),
    ("ask_itself", "could never be answered"),
])
def test_a_call_that_fails_says_so(server, model, says):
    with pytest.raises(InferenceServerException, match=says):
        infer(server, model, INPUT0=np.zeros((1, 1), np.float32))


def test_a_decoupled_model_is_to_be_asked_as_one(server):
    with pytest.raises(InferenceServerException, match="has given 3 responses.*decoupled=True"):
        count(server, "wrong_call", 3)


def test_the_configuration_is_completed(server):
    config = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}").get_model_config("auto")
    assert [tensor["name"] for tensor in config["input"]] == ["INPUT1", "INPUT0"] and len(config["output"]) == 2
    assert config["max_batch_size"] == 4 and "dynamic_batching" in config


@pytest.mark.parametrize("code, status", enumerate([400, 500, 404, 400, 503, 501, 400, 400]))
def test_errors_have_codes(server, code, status):
    body = json.dumps({"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [code]}]}).encode()
    answer = server.raw("POST", "/v2/models/codes/infer", body)
    assert b"said " in answer[2] and answer[0] == status, answer


def test_an_exception_carries_its_traceback(server):
    with pytest.raises(InferenceServerException) as caught:
        count(server, "raises", 1)
    said = caught.value.message()
    assert "KeyError: 'what it looked for'" in said and re.search(r'raises/1/model.py", line \d+, in inner', said), said
    assert "trireme_python" not in said, "our own frames are of no use"


@pytest.mark.parametrize("model, says", [
    ("short", "returned 0 responses for 1 requests"), ("no_list", "must return a list of InferenceResponse, found int"),
    ("nothing", "execute returned None"), ("none_in_it", "returned None in the place"), ("no_response", "must hold InferenceResponse, found int"),
    ("wrong_type", "'OUT' is TYPE_FP64, its configuration says TYPE_INT32"), ("too_large", "a value does not fit"),
])
def test_a_wrong_result_is_explained(server, model, says):
    with pytest.raises(InferenceServerException, match=says):
        count(server, model, 1)


def test_a_result_of_a_wider_type_is_taken_if_it_fits(server):
    assert count(server, "wider", 1) == 2**20


def test_zeros_and_ones_are_truth_values(server):
    for value in (0, 1):
        assert infer(server, "to_bool", IN=np.array([value], np.float16)).as_numpy("OUT").tolist() == [bool(value)]
    with pytest.raises(InferenceServerException, match="'OUT' is TYPE_FP16, its configuration says TYPE_BOOL, and a value does not fit"):
        infer(server, "to_bool", IN=np.array([0.5], np.float16))


def test_a_dropped_request_is_answered(server):
    with pytest.raises(InferenceServerException, match="dropped the request without a final response"):
        stream(server, "drops", IN=np.array([1], np.int32))


def test_an_answer_may_come_after_execute(server):
    assert count(server, "late", 1) == 7


def test_what_a_model_is_told(server, repository):
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
    answer = client.infer("told", tensors(httpclient, {"IN": np.array([1], np.int32)}), request_id="mine", parameters={"x": 3, "y": "z"})
    said = json.loads(answer.as_numpy("SAID")[0])
    assert said["id"] == "mine" and said["parameters"] == {"x": 3, "y": "z"} and said["outputs"] == ["SAID"]
    assert said["dir"] == str(repository / "told" / "1") and said["cpu"] and said["trace"] is None and said["correlation"] == 0
    assert said["init"] == ["model_config", "model_instance_device_id", "model_instance_kind", "model_instance_name", "model_name",
                            "model_repository", "model_version"]
    assert answer.get_response()["parameters"] == {"a": 1, "b": "two", "c": True}
    end = time.monotonic() + 10
    while not all(text in server.output() for text in ("this is standard output", "this is standard error", "this is the logger")):
        assert time.monotonic() < end, server.output()
        time.sleep(0.02)


def test_metrics(server):
    assert count(server, "measures", 1) == 2035
    assert count(server, "measures", 1) == 4035
    text = scraped(server)
    assert 'py_count{model="measures"} 4' in text and "py_level 35" in text


def scraped(server):
    return urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()


def test_a_histogram_of_all_instances_goes_with_its_model(server):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda value: count(server, "observes", value), [1, 2, 3, 4, 100])) == [11] * 5
    text = scraped(server)
    for line in ("# TYPE py_took histogram", 'py_took_bucket{le="1",model="observes"} 1', 'py_took_bucket{le="2.5",model="observes"} 2',
                 'py_took_bucket{le="10",model="observes"} 4', 'py_took_bucket{le="+Inf",model="observes"} 5',
                 'py_took_sum{model="observes"} 110', 'py_took_count{model="observes"} 5'):
        assert line in text, (line, [line for line in text.splitlines() if "py_" in line])
    assert server.raw("POST", "/v2/repository/models/observes/unload")[0] == 200
    end = time.monotonic() + 10
    while "py_took" in scraped(server):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_model_sees_that_nobody_waits(server):
    with pytest.raises(Exception):
        count(server, "waits", 1, module=httpclient, timeout=0.3)
    end = time.monotonic() + 10
    while "cancelled 1" not in server.output():
        assert time.monotonic() < end, server.output()
        time.sleep(0.02)


def test_dlpack(server):
    value = np.arange(10, dtype=np.float32)
    assert np.array_equal(infer(server, "dlpack", INPUT0=value).as_numpy("OUTPUT0"), value)
    raw = httpclient.InferInput("INPUT0", [3], "BF16")
    raw._raw_data = np.array([1, 2, 3], np.uint16).tobytes()
    raw._parameters["binary_data_size"] = 6
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
    answer = client.infer("bf16", [raw])
    assert answer.get_response()["outputs"][0]["datatype"] == "BF16"


def test_a_script_imports_what_lies_beside_it(server):
    assert count(server, "beside", 2) == 18


def test_a_process_that_ends_is_replaced(server):
    before = count(server, "dies", 1)
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="ended with exit code 3"):
            count(server, "dies", 13)
    assert count(server, "dies", 1) != before


def resident(server):
    """MiB of the server's own process."""
    status = open(f"/proc/{server.process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def open_files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_killed_a_hundred_times_under_load(server):
    """Every request is answered, well or with an error that says so, and the model is there at the end. What another model's
    clients see meanwhile, and the server's memory, are compared with as long a time without kills."""
    kills = 100 if os.environ.get("TRIREME_TEST_FULL") else 15
    done, outcomes, lock = threading.Event(), [], threading.Lock()
    phase, latencies = "warm", {"warm": [], "calm": [], "kills": []}

    def load():
        client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60)
        while not done.is_set():
            try:
                pid = count(server, "dies", 1, client=client)
                outcome = pid
            except InferenceServerException as error:
                assert "try again" in error.message(), error
                outcome = None
            with lock:
                outcomes.append(outcome)

    def other():
        client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60)
        value = np.ones((1, 4), np.float32)
        while not done.is_set():
            start, now = time.perf_counter(), phase
            answer = infer(server, "native", client=client, INPUT0=value)
            assert np.array_equal(answer.as_numpy("OUTPUT0"), value)
            latencies[now].append(time.perf_counter() - start)

    def kill():
        pid = None
        while pid is None:
            try:
                pid = count(server, "dies", 1)
            except InferenceServerException:
                pass
        os.kill(pid, signal.SIGKILL)

    threads = [threading.Thread(target=load) for _ in range(4)] + [threading.Thread(target=other)]
    [thread.start() for thread in threads]
    try:
        for _ in range(10):
            kill()
        memory, files = resident(server), open_files(server)
        # At most as long as the kills take, so that both see the same load.
        phase, start = "kills", time.monotonic()
        for _ in range(kills):
            kill()
        phase, took = "calm", time.monotonic() - start
        done.wait(min(took, 30))
    finally:
        done.set()
        [thread.join(60) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)
    pids = {pid for pid in outcomes if pid}
    assert len(pids) > kills / 3 and count(server, "dies", 1)
    p50, p99 = ({name: 1000 * np.percentile(latencies[name], share) for name in ("calm", "kills")} for share in (50, 99))
    grown = resident(server) - memory
    failed = sum(outcome is None for outcome in outcomes)
    print(f"{kills} kills in {took:.1f} s: {len(outcomes)} requests answered, {failed} of them with the error; another model's p50 "
          f"{p50['calm']:.2f} ms calm and {p50['kills']:.2f} ms with kills, p99 {p99['calm']:.2f} and {p99['kills']:.2f} ms "
          f"({len(latencies['calm'])} and {len(latencies['kills'])} requests); memory {memory:.1f} MiB and {grown:+.1f} MiB")
    assert grown < 16 and open_files(server) <= files + 16
    # New processes take the CPU that they need to start; a model that waited for them would wait as long as one does.
    assert p99["kills"] < 3 * p99["calm"] + 20, (p99, p50)


WRONG = {
    "no_class": ("x = 1\n", "does not define the class TritonPythonModel"),
    "syntax": ("class TritonPythonModel\n", "SyntaxError"),
    "no_module": ("import not_there\n", "No module named 'not_there'"),
    "no_execute": ("class TritonPythonModel:\n    pass\n", "has no method execute"),
    "init": (method("raise ValueError('not today')", "def initialize(self, args):") + "    def execute(self, requests):\n        pass\n", "ValueError: not today"),
    "exits": (method("sys.exit('enough')", "def initialize(self, args):") + "    def execute(self, requests):\n        pass\n", "exit code 1: enough"),
    "complete": (method("return 3", "def auto_complete_config(config):"), "must return the pb_utils.ModelConfig, found int"),
    "differs": (method('config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [1]})', "def auto_complete_config(config):"),
                "the configuration says TYPE_INT32"),
}


def test_scripts_that_cannot_serve_say_why(tmp_path):
    for name, (script, _) in WRONG.items():
        put(tmp_path, name, script, COUNT)
    (put(tmp_path, "archive", ADD_SUB, PAIR, extra='parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n')
     / "env.tar.gz").write_bytes(b"none")
    put(tmp_path, "zip", ADD_SUB, PAIR, extra='parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.zip" } }\n')
    put(tmp_path, "elsewhere", ADD_SUB, PAIR, extra='parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/nowhere" } }\n')
    put(tmp_path, "own", ADD_SUB, PAIR, extra=f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{sys.prefix}" }} }}\n')
    write_model(tmp_path, "no_script", VALUES.format("no_script", 0) + COUNT)
    expected = {name: says for name, (_, says) in WRONG.items()}
    expected |= {"archive": "an archive that cannot be unpacked: ", "zip": "make it a .tar.gz", "elsewhere": "'/nowhere', which is neither", "no_script": "model.py' does not exist"}
    # The interpreter of the machine need not have numpy; the one that a model names is taken before it.
    with Server(tmp_path, PYTHON, "--exit-on-error=false") as server:
        index = {line["name"]: line for line in json.loads(server.raw("POST", "/v2/repository/index")[2])}
        for name, says in expected.items():
            assert index[name]["state"] == "UNAVAILABLE" and says in index[name]["reason"], index[name]
        assert index["own"]["state"] == "READY", index["own"]


def test_an_environment_may_be_an_archive(tmp_path):
    """Two versions and another model run in what was unpacked once; it goes with them, at the latest with the next server."""
    told = method("""
return [pb_utils.InferenceResponse([pb_utils.Tensor("SAID", np.array([os.environ["FROM"]], dtype=object))]) for _ in requests]
""")
    packed = tmp_path / "env.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        content = f'#!/bin/sh\nFROM="$0" exec {sys.executable} "$@"\n'.encode()
        head = tarfile.TarInfo("bin/python3")
        head.size, head.mode = len(content), 0o755
        archive.addfile(head, BytesIO(content))
    said = io("input", "IN", "INT32", "1") + io("output", "SAID", "STRING", "1")
    environment = f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{packed}" }} }}\n'
    models, folder = tmp_path / "models", tmp_path / "unpacked"
    folder.mkdir()
    put(models, "one", told, said, extra=environment + "version_policy { all {} }\n")
    (models / "one" / "2").mkdir()
    (models / "one" / "2" / "model.py").write_text(told)
    put(models, "two", told, said, extra=environment)
    with Server(models, "--backend-config=python,interpreter=/nowhere", env={"TMPDIR": str(folder)}) as server:
        client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
        value = tensors(httpclient, {"IN": np.array([1], np.int32)})
        programs = {client.infer(model, value, model_version=version).as_numpy("SAID")[0].decode()
                    for model, version in (("one", "1"), ("one", "2"), ("two", ""))}
        (program,) = programs
        assert program.startswith(str(folder)) and program.endswith("/bin/python3") and os.path.exists(program)
        assert server.output().count("unpacking the environment") == 1
        assert server.stop() == 0 and not os.path.exists(program)
    unpacked = lambda: sorted(folder.glob("trireme-python-env-*/env/bin/python3"))  # noqa: E731
    flags = ("--backend-config=python,interpreter=/nowhere", "--model-control-mode=explicit", "--load-model=*")
    with Server(models, *flags, env={"TMPDIR": str(folder)}) as server:
        # The last of its models takes it along.
        (left,) = unpacked()
        assert server.raw("POST", "/v2/repository/models/one/unload")[0] == 200 and unpacked() == [left]
        assert server.raw("POST", "/v2/repository/models/two/unload")[0] == 200
        eventually(lambda: not unpacked())
        assert server.raw("POST", "/v2/repository/models/two/load")[0] == 200
        (left,) = unpacked()
        server.process.kill()
        server.process.wait(20)
        assert left.exists()
    with Server(models, *flags, env={"TMPDIR": str(folder)}) as server:
        assert len(unpacked()) == 1 and not left.exists(), "what a killed server left goes with the next one"
        assert server.stop() == 0 and not unpacked()


def test_a_script_outside_the_model_is_not_run(tmp_path):
    """Not even to complete the configuration."""
    ran = tmp_path / "ran"
    repository = tmp_path / "models"
    put(repository, "mine", ADD_SUB, PAIR, extra='default_model_filename: "../../../outside.py"\n')
    (tmp_path / "outside.py").write_text(f"open({str(ran)!r}, 'w')\n" + ADD_SUB)
    with Server(repository, PYTHON, "--exit-on-error=false") as server:
        (line,) = json.loads(server.raw("POST", "/v2/repository/index")[2])
        assert "default_model_filename '../../../outside.py' leaves the version's directory" in line["reason"], line
        assert not ran.exists()


def test_a_missing_interpreter_is_named(tmp_path):
    put(tmp_path, "add_sub", ADD_SUB, PAIR)
    with Server(tmp_path, "--backend-config=python,interpreter=/nowhere/python3", "--exit-on-error=false") as server:
        (line,) = json.loads(server.raw("POST", "/v2/repository/index")[2])
        assert "cannot start the interpreter '/nowhere/python3'" in line["reason"], line
    with Server(tmp_path, "--backend-config=python,shm=1", "--exit-on-error=false") as server:
        (line,) = json.loads(server.raw("POST", "/v2/repository/index")[2])
        assert "--backend-config=python,shm is unknown" in line["reason"], line


def test_models_that_asked_each_other_end(tmp_path):
    flat = io("input", "INPUT0", "FP32", "-1, -1") + io("output", "OUTPUT0", "FP32", "-1, -1")
    put(tmp_path, "identity_fp32", IDENTITY, flat)
    put(tmp_path, "ask", method(ASK.format(model="identity_fp32", call="ask.exec()")), flat)
    with Server(tmp_path, PYTHON) as server:
        infer(server, "ask", INPUT0=np.zeros((1, 1), np.float32))
        assert server.stop(timeout=15) == 0, server.output()


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_processes_end_with_the_server(tmp_path):
    put(tmp_path, "dies", method("""
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([os.getpid()], np.int32))])]
""", more='def finalize(self): print("finalized", flush=True)'), COUNT)
    for end in (signal.SIGTERM, signal.SIGKILL):
        with Server(tmp_path, PYTHON) as server:
            pid = count(server, "dies", 1)
            server.process.send_signal(end)
            server.process.wait(20)
            deadline = time.monotonic() + 10
            while runs(pid):
                assert time.monotonic() < deadline, f"process {pid} is still there"
                time.sleep(0.02)
            assert end == signal.SIGKILL or "finalized" in server.output()
