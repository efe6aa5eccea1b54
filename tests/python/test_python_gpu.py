"""Models in Python whose tensors are on a GPU: with `guarded` (tests/examples) in the server and, in the processes of the models, a
driver whose GPU is the same memory (`memory_driver.c`). On a real one: test_gpu_tensors.py."""
import base64
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from test_devices import N, VALUE, ask, backends, client_memory, clients, guarded, metrics, moved  # noqa: F401
from test_ensemble import ensemble, step
from trireme_server import ROOT, Server, io, write_model

# Stands for what PyTorch does: `multiply` gives an object with __dlpack__ on the GPU that the input is on.
SCRIPT = '''
import ctypes, json, os
import numpy as np
import triton_python_backend_utils as pb_utils
from trireme_python import dlpack, gpu

get = ctypes.pythonapi.PyCapsule_GetPointer
get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
library = ctypes.CDLL("libcuda.so.1")
pointer = ctypes.c_void_p

class Owned:
    def __init__(self, length):
        self.address = ctypes.c_uint64()
        with gpu.driver().on(0):
            gpu.driver().call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(length + 256))

    def __del__(self):
        with gpu.driver().on(0):
            gpu.driver().call("cuMemFree_v2", self.address)

def floats(address, count):
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))

class TritonPythonModel:
    def initialize(self, args):
        self.factor = int(json.loads(args["model_config"])["parameters"]["factor"]["string_value"])

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X")
            shape, where = x.shape(), [0 if x.is_cpu() else 1, library.test_count(0), library.test_count(1), os.getpid()]
            if x.is_cpu():
                values = x.as_numpy()
            else:
                assert x.__dlpack_device__() == (2, 0)
                try:
                    x.as_numpy()
                    raise AssertionError("an array of what is on a GPU")
                except pb_utils.TritonModelException as error:
                    assert "use to_dlpack()" in str(error), error
                capsule = x.to_dlpack()
                values = floats(ctypes.c_void_p.from_address(get(capsule, b"dltensor")).value, shape[0])
            if values.size and values[0] == -1:
                os.abort()
            if values.size and values[0] == -3:
                library.test_fault(719)
            owner = Owned(4 * values.size)
            # Somewhere within its allocation. Not done when this returns: a kernel runs when somebody waits for it.
            y = owner.address.value + 256
            assert library.test_multiply(pointer(y), pointer(values.ctypes.data), ctypes.c_size_t(values.size), ctypes.c_float(self.factor)) == 0
            made = dlpack.export_gpu(gpu.Foreign(0, y, owner), shape, 11)
            y = pb_utils.Tensor.from_dlpack("Y", made)
            assert not y.is_cpu() and y.shape() == shape
            outputs = [y, pb_utils.Tensor("WHERE", np.array(where, np.uint64))]
            if values.size and values[0] == -2:
                outputs.append(pb_utils.Tensor("NONE", np.array([b"a text"], object)))
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
'''
FORWARD = '''
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        make = lambda request: pb_utils.get_input_tensor_by_name(request, "X")
        again = lambda x: x if x.is_cpu() else pb_utils.Tensor.from_dlpack("Y", x)
        return [pb_utils.InferenceResponse([again(make(request))]) for request in requests]
'''


def python(name, factor, kind="KIND_GPU gpus: [ 0 ]", force="no"):
    text = f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n' + io("input", "X", "FP32", "-1") + io("output", "Y", "FP32", "-1")
    text += io("output", "WHERE", "UINT64", "4") + io("output", "NONE", "FP32", "-1")
    for key, value in (("factor", factor), ("FORCE_CPU_ONLY_INPUT_TENSORS", force)):
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text + f"instance_group [ {{ kind: {kind} }} ]\n"


def chain(name, *models):
    """The models one after the other; OUT is the result, WHERE0, WHERE1 … are what each says of its place."""
    steps, outputs, tensor = [], [("OUT", "FP32", "-1")], "IN"
    for number, model in enumerate(models):
        following = "OUT" if number + 1 == len(models) else f"t{number}"
        where = {} if model == "forward" else {"WHERE": f"WHERE{number}"}
        steps.append(step(model, {"X": tensor}, {"Y": following, **where}))
        if where:
            outputs.append((f"WHERE{number}", "UINT64", "4" if model.startswith("python") else "2"))
        tensor = following
    return ensemble(name, [("IN", "FP32", "-1")], outputs, *steps, batch=0)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of the driver."""
    folder = tmp_path_factory.mktemp("driver")
    source = pathlib.Path(__file__).with_name("memory_driver.c")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, driver, backends):  # noqa: F811
    repository = tmp_path_factory.mktemp("python-gpu")
    for name, config in {"double": guarded("double", 2), "triple": guarded("triple", 3, delay_ms=20), "withheld": guarded("withheld", 2, withheld="true"),
                         "lost": guarded("lost", 2, withheld="true", broken="true")}.items():
        write_model(repository, name, config)
    scripts = {"python": python("python", 5), "pythonforced": python("pythonforced", 5, force="yes"),
               "pythonpair": python("pythonpair", 5) + io("input", "Z", "FP32", "-1"),
               "pythoncpu": python("pythoncpu", 5, "KIND_CPU"), "pythonwrong": python("pythonwrong", 5, force="maybe")}
    for name, config in scripts.items():
        write_model(repository, name, config, files=[("1/model.py", SCRIPT.encode())])
    write_model(repository, "forward", python("forward", 1).replace(io("output", "WHERE", "UINT64", "4"), ""),
                files=[("1/model.py", FORWARD.encode())])
    for name, models in {"between": ("double", "python", "triple"), "last": ("double", "python"), "twice": ("python", "python"),
                         "forced": ("double", "pythonforced", "triple"), "oncpu": ("double", "pythoncpu", "triple"),
                         "forwarding": ("double", "forward", "triple"), "withholding": ("withheld", "python", "triple")}.items():
        write_model(repository, name, chain(name, *models))
    steps = step("double", {"X": "IN"}, {"Y": "there"}), step("lost", {"X": "IN"}, {"Y": "nowhere"}), step("pythonpair", {"X": "there", "Z": "nowhere"}, {"Y": "OUT"})
    write_model(repository, "failing", ensemble("failing", [("IN", "FP32", "-1")], [("OUT", "FP32", "-1")], *steps, batch=0))
    with Server(repository, "--exit-on-error=false", "--strict-readiness=false", "--allow-client-shm=true", f"--backend-config=python,interpreter={sys.executable}",
                env={"TRIREME_ABI_CHECK": "1", "LD_LIBRARY_PATH": str(driver)}, backends=backends) as server:
        yield server
        assert "broke the rule" not in server.output(), server.output()
        assert quiet_of(server)["guarded_misuses"] == 0, server.output()


def quiet_of(server):
    """The metrics when nothing of the devices has come or gone for half a second. Nobody is asked meanwhile: what a model had in
    its last batch must go by itself."""
    end = time.monotonic() + 20
    last, since = metrics(server), time.monotonic()
    while time.monotonic() < since + 0.5:
        assert time.monotonic() < end, last
        time.sleep(0.02)
        now = metrics(server)
        if now["guarded_bytes"] != last["guarded_bytes"]:
            last, since = now, time.monotonic()
    return last


def test_a_model_in_python_reads_and_writes_the_gpu(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "between", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 30)
        assert result.as_numpy("WHERE1")[0] == 1 and result.as_numpy("WHERE2")[0] != 0
        # Up for the first step, down for the client, and nothing for the step in Python.
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 4 * N, "between": 0}
        assert np.array_equal(ask(module, client, "last", VALUE).as_numpy("OUT"), VALUE * 10)
        # What the first one has made the server has opened, so that the second one cannot.
        twice = ask(module, client, "twice", VALUE)
        assert np.array_equal(twice.as_numpy("OUT"), VALUE * 25) and twice.as_numpy("WHERE1")[0] == 0
        # An input in the memory of the host stays there.
        alone = ask(module, client, "python", VALUE, "X")
        assert np.array_equal(alone.as_numpy("Y"), VALUE * 5) and alone.as_numpy("WHERE")[0] == 0


def test_the_memory_of_the_host_is_asked_for(server):
    for module, client in clients(server):
        for model in ("forced", "oncpu"):
            before = metrics(server)
            result = ask(module, client, model, VALUE)
            assert np.array_equal(result.as_numpy("OUT"), VALUE * 30), model
            assert result.as_numpy("WHERE1")[0] == 0
            if model == "forced":
                # Nor does what the model makes on a GPU stay there: up for the step before it and for the one behind it.
                assert moved(before, metrics(server)) == {"to_device": 8 * N, "to_host": 8 * N, "between": 0}
    _, _, body = server.raw("POST", "/v2/repository/index")
    assert b"parameter 'FORCE_CPU_ONLY_INPUT_TENSORS' is 'maybe': yes or no" in body


def test_what_came_from_the_server_goes_back_to_it(server):
    """Memory that was opened cannot be opened from there by a third, so it is copied."""
    for module, client in clients(server):
        assert np.array_equal(ask(module, client, "forwarding", VALUE).as_numpy("OUT"), VALUE * 6)


def test_what_no_other_process_can_open_is_copied(server):
    memory, handle, file = client_memory(1 << 16)
    for module, client in clients(server):
        result = ask(module, client, "withholding", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 30) and result.as_numpy("WHERE1")[0] == 0
        # CUDA shared memory of a client belongs to the client.
        client.register_cuda_shared_memory("region", base64.b64encode(handle), 0, 1 << 16)
        memory[256:256 + 4 * N] = VALUE.tobytes()
        tensor = module.InferInput("X", [N], "FP32")
        tensor.set_shared_memory("region", 4 * N, 256)
        result = client.infer("python", [tensor])
        assert np.array_equal(result.as_numpy("Y"), VALUE * 5) and result.as_numpy("WHERE")[0] == 0
        client.unregister_cuda_shared_memory("region")
    memory.close()
    os.close(file)


def test_an_idle_model_has_nothing_of_the_server(server):
    module, client = clients(server)[1]
    ask(module, client, "between", VALUE)
    # With this frame goes whatever it still had.
    ask(module, client, "python", VALUE, "X")
    before = quiet_of(server)
    ask(module, client, "between", VALUE)
    assert quiet_of(server)["guarded_bytes"] == before["guarded_bytes"]


def test_inputs_of_a_request_that_cannot_be_sent_go_back(server):
    module, client = clients(server)[1]
    ask(module, client, "between", VALUE)
    before = quiet_of(server)
    for _ in range(5):
        with pytest.raises(Exception, match="an uncorrectable error of the memory"):
            ask(module, client, "failing", VALUE)
    assert quiet_of(server)["guarded_bytes"] == before["guarded_bytes"]


def test_a_process_whose_gpu_is_lost_ends(server):
    module, client = clients(server)[1]
    where = answered(server)
    before = quiet_of(server)
    with pytest.raises(Exception, match="cuCtxSynchronize: .*719"):
        ask(module, client, "last", np.full(N, -1.5, np.float32))
    end = time.monotonic() + 20
    while "the process ends, for its GPU 0 is lost: cuCtxSynchronize" not in server.output():
        assert time.monotonic() < end, server.output()
        time.sleep(0.02)
    assert answered(server) != where
    assert quiet_of(server)["guarded_bytes"] == before["guarded_bytes"]


def test_nothing_stays_behind(server):
    module, client = clients(server)[1]
    counts = ask(module, client, "between", VALUE).as_numpy("WHERE1")
    before = quiet_of(server)
    wrong = []

    def many(model, factor):
        own = grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}")
        for number in range(30):
            value = VALUE + number
            if not np.array_equal(ask(grpcclient, own, model, value).as_numpy("OUT"), value * factor):
                wrong.append(model)

    threads = [threading.Thread(target=many, args=one) for one in (("between", 30), ("last", 10), ("twice", 25), ("forced", 30))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # An output that cannot be sent takes the one before it along.
    for _ in range(5):
        with pytest.raises(Exception, match="its configuration says"):
            ask(module, client, "python", np.full(N, -2, np.float32), "X")
    after = quiet_of(server)
    assert after["guarded_bytes"] == before["guarded_bytes"], (before, after)
    now = ask(module, client, "between", VALUE).as_numpy("WHERE1")
    assert now[1] <= counts[1] + 2 and now[2] <= counts[2] + 2, (counts, now)


def answered(server):
    """The process of `python`, once there is one."""
    module, client = clients(server)[1]
    end = time.monotonic() + 20
    while True:
        try:
            ask(module, client, "between", VALUE)
            return int(ask(module, client, "python", VALUE, "X").as_numpy("WHERE")[3])
        except Exception as error:
            assert "try again" in str(error) and time.monotonic() < end, error


def test_a_process_that_ends_leaves_nothing_open(server):
    module, client = clients(server)[1]
    before = quiet_of(server)
    for _ in range(3):
        with pytest.raises(Exception, match="signal 6; try again"):
            ask(module, client, "python", np.full(N, -1, np.float32), "X")
        os.kill(answered(server), signal.SIGKILL)
        answered(server)
    assert quiet_of(server)["guarded_bytes"] <= before["guarded_bytes"]


# A link and memory of the server in the process itself, which both sides can open there.
ALONE = """
import ctypes, os, socket, sys, threading
sys.path.insert(0, sys.argv[1])
from trireme_python import frames, gpu
from trireme_python.link import Link

library = ctypes.CDLL("libcuda.so.1")
link = Link(socket.socket(fileno=int(sys.argv[2])))
address = ctypes.c_uint64()
with gpu.driver().on(0):
    gpu.driver().call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(4096))
handle, offset = gpu.driver().export(0, address.value)
place = gpu.PLACE.pack(0, len(handle), offset) + handle

def multiply(to, of, count):
    return library.test_multiply(ctypes.c_void_p(to), ctypes.c_void_p(of), ctypes.c_size_t(count), ctypes.c_float(2))
"""


def alone(driver, script):
    """Runs a script over the package of the backend: how it ended, and the frames that it sent."""
    here, there = socket.socketpair()
    command = [sys.executable, "-c", ALONE + script, str(ROOT / "backends" / "python" / "python"), str(there.fileno())]
    ended = subprocess.run(command, pass_fds=[there.fileno()], env={**os.environ, "LD_LIBRARY_PATH": str(driver)}, timeout=60)
    there.close()
    sent, found = bytearray(), []
    while data := here.recv(1 << 16):
        sent += data
    here.close()
    while sent:
        length, kind = struct.unpack_from("<IB3x", sent)
        found.append((kind, bytes(sent[8:8 + length])))
        del sent[:8 + length]
    return ended.returncode, found


READY, LOG, RETURN = 1, 8, 9


def test_two_threads_open_memory_once(driver):
    code, _ = alone(driver, """
both = threading.Barrier(2)
real = gpu.driver
def met():
    # Both have found that it is not open, or one of them alone.
    try:
        both.wait(0.3)
    except threading.BrokenBarrierError:
        pass
    return real()
gpu.driver = met
one = gpu.Borrowed(link, 1 | gpu.GPU, place)
threads = [threading.Thread(target=one.address) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
gpu.driver = real
assert library.test_count(1) == 1
del one
link.send(frames.READY)
assert library.test_count(1) == 0
""")
    assert code == 0


def test_what_the_gpu_still_may_read_is_kept_and_the_rest_given_back(driver):
    # As while a thread records a CUDA graph.
    code, sent = alone(driver, """
gpu.Borrowed(link, 1 | gpu.GPU, place)
two = gpu.Borrowed(link, 2 | gpu.GPU, place)
# A kernel that reads it, and has not run yet.
assert multiply(address.value, two.address(), 1) == 0
del two
library.test_fault(900)
link.send(frames.READY)
assert library.test_count(1) == 1
library.test_fault(0)
link.send(frames.READY)
assert library.test_count(1) == 0
""")
    assert code == 0
    assert sent == [(RETURN, struct.pack("<I", 1 | 1 << 30)), (READY, b""), (RETURN, struct.pack("<I", 2 | 1 << 30)), (READY, b"")]


def test_a_copy_has_what_the_gpu_had_still_to_write(driver):
    code, _ = alone(driver, """
ctypes.memmove(address.value, (ctypes.c_float * 2)(1, 2), 8)
assert multiply(address.value + 8, address.value, 2) == 0
assert gpu.driver().to_host(0, address.value + 8, 8) == bytes((ctypes.c_float * 2)(2, 4))
""")
    assert code == 0


def test_a_lost_gpu_ends_the_process_on_purpose(driver):
    code, sent = alone(driver, """
gpu.Borrowed(link, 1 | gpu.GPU, place)
gpu.Borrowed(link, 2 | gpu.GPU, place).address()
library.test_fault(719)
link.send(frames.READY)
""")
    assert code == 1
    assert sent[:2] == [(RETURN, struct.pack("<I", 1 | 1 << 30)), (READY, b"")]
    assert sent[2:] == [(LOG, b"\x01the process ends, for its GPU 0 is lost: cuCtxSynchronize: invalid (719)")]
