"""Tensors in the memory of a real GPU: between two models, and in CUDA shared memory of clients. What has no GPU skips this; what the
server does is tested without one in test_devices.py. `scale` (tests/examples) multiplies, `tensorrtllm` provides the GPU's memory."""
import importlib.util
import itertools
import re
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from test_cuda import DRIVER, model as provider
from test_devices import ask, clients, moved
from test_ensemble import ensemble, step
from trireme_server import BACKENDS, TARGET, Server, identity, io, write_model

pytestmark = pytest.mark.skipif(not DRIVER, reason="this machine has no driver")

N = 1000
VALUE = np.arange(N, dtype=np.float32)
# Longer than any request takes otherwise: who does not wait for an event reads what was there before.
DELAY_US = 30000


TORCH = importlib.util.find_spec("torch") is not None
SCRIPT = """
import torch
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X")
            there = 0 if x.is_cpu() else torch.from_dlpack(x).data_ptr()
            values = torch.from_numpy(x.as_numpy()).cuda() if x.is_cpu() else torch.from_dlpack(x)
            # Work that is still running when the answer is sent: whoever does not wait for it reads zeros.
            y = torch.zeros_like(values)
            torch.cuda._sleep(10_000_000)
            y += values * 5
            where = torch.tensor([there, y.data_ptr()]).numpy().astype("uint64")
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("Y", y), pb_utils.Tensor("WHERE", where)]))
        return responses
"""


def python(name):
    """`x * 5` by PyTorch."""
    text = f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n' + io("input", "X", "FP32", "-1") + io("output", "Y", "FP32", "-1")
    text += io("output", "WHERE", "UINT64", "2") + "instance_group [ { kind: KIND_GPU gpus: [ 0 ] } ]\n"
    return text + 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }\n'


def scale(name, factor, **parameters):
    text = f'name: "{name}"\nbackend: "scale"\nmax_batch_size: 0\n' + io("input", "X", "FP32", "-1")
    text += io("output", "Y", "FP32", "-1") + io("output", "WHERE", "UINT64", "2")
    for key, value in {"factor": factor, **parameters}.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text + "instance_group [ { kind: KIND_GPU gpus: [ 0 ] } ]\n"


def chain(name, *models):
    """The models one after the other; OUT is the result, WHERE0, WHERE1 … are where they read and wrote."""
    steps, outputs, tensor = [], [("OUT", "FP32", "-1")], "IN"
    for number, one in enumerate(models):
        following = "OUT" if number + 1 == len(models) else f"t{number}"
        if one == "cpu":
            steps.append(step(one, {"INPUT0": tensor}, {"OUTPUT0": following}))
        else:
            steps.append(step(one, {"X": tensor}, {"Y": following, "WHERE": f"WHERE{number}"}))
            outputs.append((f"WHERE{number}", "UINT64", "2"))
        tensor = following
    return ensemble(name, [("IN", "FP32", "-1")], outputs, *steps, batch=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    for installed in BACKENDS.iterdir():
        (folder / installed.name).symlink_to(installed)
    library = TARGET / "examples" / "libtrireme_scale.so"
    assert library.is_file(), "cargo build --release -p trireme-tests --examples"
    if not (folder / "scale").exists():
        (folder / "scale").mkdir()
        (folder / "scale" / library.name).symlink_to(library)
    repository = tmp_path_factory.mktemp("gpu")
    models = {
        "double": scale("double", 2), "triple": scale("triple", 3), "late": scale("late", 2, delay_us=DELAY_US),
        "cpu": identity("cpu", batch=0),
        "two": chain("two", "double", "triple"), "lately": chain("lately", "late", "triple"),
        "later": chain("later", "triple", "late"), "staged": chain("staged", "double", "cpu", "triple"),
        "stagedlately": chain("stagedlately", "late", "cpu", "late"),
        "both": ensemble("both", [("IN", "FP32", "-1")], [("SEEN", "FP32", "-1"), ("OUT", "FP32", "-1"), ("COPY", "FP32", "-1")],
                         step("late", {"X": "IN"}, {"Y": "SEEN"}), step("triple", {"X": "SEEN"}, {"Y": "OUT"}),
                         step("cpu", {"INPUT0": "SEEN"}, {"OUTPUT0": "COPY"}), batch=0),
    }
    if TORCH:
        write_model(repository, "torch", python("torch"), files=[("1/model.py", SCRIPT.encode())])
        models |= {"between": chain("between", "late", "torch", "late"), "twice": chain("twice", "torch", "torch"),
                   "copied": chain("copied", "torch", "cpu", "torch")}
    for name, config in models.items():
        write_model(repository, name, config)
    provider(repository, 'parameters { key: "max_tokens_in_paged_kv_cache" value { string_value: "256" } }\n')
    interpreter = f"--backend-config=python,interpreter={sys.executable}"
    with Server(repository, "--allow-client-shm=true", interpreter, env={"TRIREME_ABI_CHECK": "1"}, backends=folder) as server:
        yield server
        server.alive()
        assert "broke the rule" not in server.output(), server.output()


def metrics(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()
    lines = re.findall(r'^trireme_device_copied_bytes_total\{.*way="(\w+)".*\} (\S+)$', text, re.MULTILINE)
    return {name: int(float(value)) for name, value in lines}


def gpu_memory(server):
    """Bytes of GPU 0 in use, of all processes."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()
    return max(float(value) for value in re.findall(r"^nv_gpu_memory_used_bytes\S* (\S+)$", text, re.MULTILINE))


def test_a_step_reads_what_the_step_before_left_on_the_gpu(server):
    for module, client in clients(server):
        # The bytes are there 30 ms after the answer of the first step in the second one, at the end in the third.
        for name, factor in (("two", 6), ("lately", 6), ("later", 6)):
            before = metrics(server)
            result = ask(module, client, name, VALUE)
            assert np.array_equal(result.as_numpy("OUT"), VALUE * factor), name
            first, second = result.as_numpy("WHERE0"), result.as_numpy("WHERE1")
            assert second[0] == first[1] != 0, "the same address"
            # Up for the first step and nothing in between. The last one writes where the client reads, which is pinned memory.
            assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 0, "between": 0}, name


def test_a_step_on_the_cpu_between_gets_a_copy(server):
    for module, client in clients(server):
        for name, factor in (("staged", 6), ("stagedlately", 4)):
            result = ask(module, client, name, VALUE)
            assert np.array_equal(result.as_numpy("OUT"), VALUE * factor), name
            assert result.as_numpy("WHERE2")[0] == 0


def test_several_readers_share_one_copy(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "both", VALUE)
        for name, factor in (("SEEN", 2), ("OUT", 6), ("COPY", 2)):
            assert np.array_equal(result.as_numpy(name), VALUE * factor), name
        assert moved(before, metrics(server))["to_host"] == 4 * N, "SEEN once, for the client and the step on the CPU"


def test_large_ones_and_many_at_once_are_right_and_nothing_stays(server):
    large = np.random.default_rng(1).random(8 << 20, np.float32)
    module, client = clients(server)[1]
    ask(module, client, "two", large)
    wrong = []

    def many(name, factor):
        own = grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}")
        for number in range(20):
            value = VALUE + number
            if not np.array_equal(ask(grpcclient, own, name, value).as_numpy("OUT"), value * factor):
                wrong.append(name)

    def round_of_all():
        assert np.array_equal(ask(module, client, "two", large).as_numpy("OUT"), large * 2 * 3)
        threads = [threading.Thread(target=many, args=one) for one in (("two", 6), ("lately", 6), ("later", 6), ("staged", 6), ("both", 6))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    round_of_all()
    time.sleep(1.5)
    before = gpu_memory(server)
    round_of_all()
    assert not wrong
    time.sleep(1.5)
    assert gpu_memory(server) <= before + (8 << 20)


@pytest.mark.skipif(not TORCH, reason="this machine has no PyTorch")
def test_a_model_in_python_reads_and_writes_the_gpu(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "between", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 20)
        assert result.as_numpy("WHERE1")[0] != 0 and result.as_numpy("WHERE2")[0] != 0
        # Up for the first step, and nothing between the three; the last one writes where the client reads.
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 0, "between": 0}
        assert np.array_equal(ask(module, client, "twice", VALUE).as_numpy("OUT"), VALUE * 25)
        assert np.array_equal(ask(module, client, "copied", VALUE).as_numpy("OUT"), VALUE * 25)
        alone = ask(module, client, "torch", VALUE, "X")
        assert np.array_equal(alone.as_numpy("Y"), VALUE * 5) and alone.as_numpy("WHERE")[0] == 0
    large = np.random.default_rng(2).random(4 << 20, np.float32)
    module, client = clients(server)[1]
    results = [ask(module, client, "between", large).as_numpy("OUT") for _ in range(3)]
    assert all(np.array_equal(result, large * 2 * 5 * 2) for result in results)
    time.sleep(1.5)
    memory = gpu_memory(server)
    for number in range(12):
        assert np.array_equal(ask(module, client, "between", VALUE + number).as_numpy("OUT"), (VALUE + number) * 20)
        ask(module, client, "between", large)
    time.sleep(1.5)
    assert gpu_memory(server) <= memory + (8 << 20)


def test_tensors_in_cuda_shared_memory(server):
    import tritonclient.utils.cuda_shared_memory as cudashm

    size = 1 << 20
    for number, (module, client) in enumerate(clients(server)):
        region = cudashm.create_shared_memory_region("region", size, 0)
        try:
            client.register_cuda_shared_memory("region", cudashm.get_raw_handle(region), 0, size)
            for (name, tensor, out, factor), turn in itertools.product(
                    (("double", "X", "Y", 2), ("late", "X", "Y", 2), ("two", "IN", "OUT", 6), ("lately", "IN", "OUT", 6),
                     ("stagedlately", "IN", "OUT", 4), ("cpu", "INPUT0", "OUTPUT0", 1)), range(3)):
                value = VALUE + number + 2 * turn
                cudashm.set_shared_memory_region(region, [np.zeros(64, np.float32), value])
                given = module.InferInput(tensor, [N], "FP32")
                given.set_shared_memory("region", 4 * N, 256)
                before = metrics(server)
                result = client.infer(name, [given])
                assert np.array_equal(result.as_numpy(out), value * factor), name
                if name == "double":
                    # Read where the client put it.
                    assert result.as_numpy("WHERE")[0] != 0 and moved(before, metrics(server))["to_device"] == 0
                wanted = module.InferRequestedOutput(out)
                wanted.set_shared_memory("region", 4 * N, 65536)
                client.infer(name, [given], outputs=[wanted])
                found = cudashm.get_contents_as_numpy(region, "FP32", [N], offset=65536)
                assert np.array_equal(found, value * factor), (name, turn)
            given.set_shared_memory("region", 4 * N, size - 4)
            with pytest.raises(Exception, match="Invalid offset . byte size for shared memory region: 'region'"):
                client.infer("cpu", [given])
            for device, length, says in ((0, 1 << 40, "the allocation has"), (9, 8, "GPUs not supported")):
                with pytest.raises(Exception, match=f"failed to register CUDA shared memory region: 'bad', .*{says}"):
                    client.register_cuda_shared_memory("bad", cudashm.get_raw_handle(region), device, length)
            client.unregister_cuda_shared_memory("region")
        finally:
            cudashm.destroy_shared_memory_region(region)
    server.alive()


def test_a_handle_that_is_none_is_refused_and_the_gpu_goes_on(server):
    import base64

    for module, client in clients(server):
        for bad in (b"short", bytes(64), bytes(range(64))):
            with pytest.raises(Exception, match="failed to register CUDA shared memory region: 'bad'"):
                client.register_cuda_shared_memory("bad", base64.b64encode(bad), 0, 8)
        assert np.array_equal(ask(module, client, "lately", VALUE).as_numpy("OUT"), VALUE * 6)


def test_memory_of_tensors_from_torch(server):
    """As a client has it that computes with PyTorch: a tensor of its own is registered by the handle of its allocation."""
    torch = pytest.importorskip("torch")
    import base64
    from cuda.bindings import driver

    tensor = torch.arange(1 << 19, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()
    status, base, whole = driver.cuMemGetAddressRange(tensor.data_ptr())
    assert status == driver.CUresult.CUDA_SUCCESS
    status, handle = driver.cuIpcGetMemHandle(base)
    assert status == driver.CUresult.CUDA_SUCCESS
    offset = tensor.data_ptr() - int(base)
    for module, client in clients(server):
        tensor.copy_(torch.randn_like(tensor))
        torch.cuda.synchronize()
        expected = (tensor[:N] * 6).cpu().numpy()
        client.register_cuda_shared_memory("torch", base64.b64encode(bytes(handle.reserved)), 0, whole)
        given, wanted = module.InferInput("IN", [N], "FP32"), module.InferRequestedOutput("OUT")
        given.set_shared_memory("torch", 4 * N, offset)
        wanted.set_shared_memory("torch", 4 * N, offset + 65536)
        client.infer("lately", [given], outputs=[wanted])
        assert np.allclose(tensor[16384:16384 + N].cpu().numpy(), expected, rtol=1e-6)
        client.unregister_cuda_shared_memory("torch")
