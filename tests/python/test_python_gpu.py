"""Models in Python whose tensors are on a GPU: with `guarded` (tests/examples) in the server and, in the processes of the models, a
driver whose GPU is the same memory (`memory_driver.c`). On a real one: test_gpu_tensors.py."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from test_devices import N, VALUE, ask, backends, clients, guarded, metrics, moved  # noqa: F401
from test_ensemble import ensemble, step
from trireme_server import Server, io, write_model

# Stands for what PyTorch does: `multiply` gives an object with __dlpack__ on the GPU that the input is on.
SCRIPT = '''
import ctypes, json, os
import numpy as np
import triton_python_backend_utils as pb_utils
from trireme_python import dlpack, gpu

get = ctypes.pythonapi.PyCapsule_GetPointer
get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
library = ctypes.CDLL("libcuda.so.1")

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
            owner = Owned(4 * values.size)
            # Somewhere within its allocation.
            floats(owner.address.value + 256, values.size)[:] = values * self.factor
            made = dlpack.export_gpu(gpu.Foreign(0, owner.address.value + 256, owner), shape, 11)
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
def server(tmp_path_factory, backends):  # noqa: F811
    folder = tmp_path_factory.mktemp("driver")
    source = pathlib.Path(__file__).with_name("memory_driver.c")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    repository = tmp_path_factory.mktemp("python-gpu")
    for name, config in {"double": guarded("double", 2), "triple": guarded("triple", 3, delay_ms=20)}.items():
        write_model(repository, name, config)
    scripts = {"python": python("python", 5), "pythonforced": python("pythonforced", 5, force="yes"),
               "pythoncpu": python("pythoncpu", 5, "KIND_CPU"), "pythonwrong": python("pythonwrong", 5, force="maybe")}
    for name, config in scripts.items():
        write_model(repository, name, config, files=[("1/model.py", SCRIPT.encode())])
    write_model(repository, "forward", python("forward", 1).replace(io("output", "WHERE", "UINT64", "4"), ""),
                files=[("1/model.py", FORWARD.encode())])
    for name, models in {"between": ("double", "python", "triple"), "last": ("double", "python"), "twice": ("python", "python"),
                         "forced": ("double", "pythonforced", "triple"), "oncpu": ("double", "pythoncpu", "triple"),
                         "forwarding": ("double", "forward", "triple")}.items():
        write_model(repository, name, chain(name, *models))
    with Server(repository, "--exit-on-error=false", "--strict-readiness=false", f"--backend-config=python,interpreter={sys.executable}", env={"TRIREME_ABI_CHECK": "1", "LD_LIBRARY_PATH": str(folder)},
                backends=backends) as server:
        yield server
        assert "broke the rule" not in server.output(), server.output()
        assert quiet_of(server)["guarded_misuses"] == 0, server.output()


def quiet_of(server):
    """The metrics when the events are gone, apart from those that the pool keeps."""
    module, client = clients(server)[1]
    for _ in range(3):
        ask(module, client, "between", VALUE)
    return metrics(server)


def test_a_model_in_python_reads_and_writes_the_gpu(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "between", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 30)
        assert result.as_numpy("WHERE1")[0] == 1 and result.as_numpy("WHERE2")[0] != 0
        # Up for the first step, down for the client, and nothing for the step in Python.
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 4 * N, "between": 0}
        assert np.array_equal(ask(module, client, "last", VALUE).as_numpy("OUT"), VALUE * 10)
        assert np.array_equal(ask(module, client, "twice", VALUE).as_numpy("OUT"), VALUE * 25)
        # An input in the memory of the host stays there.
        alone = ask(module, client, "python", VALUE, "X")
        assert np.array_equal(alone.as_numpy("Y"), VALUE * 5) and alone.as_numpy("WHERE")[0] == 0


def test_the_memory_of_the_host_is_asked_for(server):
    for module, client in clients(server):
        for model in ("forced", "oncpu"):
            result = ask(module, client, model, VALUE)
            assert np.array_equal(result.as_numpy("OUT"), VALUE * 30), model
            assert result.as_numpy("WHERE1")[0] == 0
    _, _, body = server.raw("POST", "/v2/repository/index")
    assert b"parameter 'FORCE_CPU_ONLY_INPUT_TENSORS' is 'maybe': yes or no" in body


def test_what_came_from_the_server_goes_back_to_it(server):
    """Memory that was opened cannot be opened from there by a third, so it is copied."""
    for module, client in clients(server):
        assert np.array_equal(ask(module, client, "forwarding", VALUE).as_numpy("OUT"), VALUE * 6)


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
    assert after["guarded_bytes"] <= before["guarded_bytes"] + 8 * 4096, (before, after)
    now = ask(module, client, "between", VALUE).as_numpy("WHERE1")
    assert now[1] <= counts[1] + 2 and now[2] <= counts[2] + 2, (counts, now)


def test_a_process_that_ends_leaves_nothing_open(server):
    module, client = clients(server)[1]
    before = quiet_of(server)

    def answered():
        """Its process, once there is one."""
        end = time.monotonic() + 20
        while True:
            try:
                ask(module, client, "between", VALUE)
                return int(ask(module, client, "python", VALUE, "X").as_numpy("WHERE")[3])
            except Exception as error:
                assert "try again" in str(error) and time.monotonic() < end, error

    for _ in range(3):
        with pytest.raises(Exception, match="signal 6; try again"):
            ask(module, client, "python", np.full(N, -1, np.float32), "X")
        os.kill(answered(), signal.SIGKILL)
        answered()
    assert quiet_of(server)["guarded_bytes"] <= before["guarded_bytes"]
