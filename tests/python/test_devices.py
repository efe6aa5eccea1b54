"""Tensors on GPUs, with the backend `guarded` (tests/examples): its GPUs are memory that ends the process when the CPU touches it."""
import base64
import contextlib
import errno
import json
import mmap
import os
import queue
import re
import struct
import threading
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from test_ensemble import ensemble, memory, step
from tritonclient.utils import serialize_byte_tensor
from trireme_server import BACKENDS, TARGET, Server, identity, io, write_model

N = 1000


def guarded(name, factor, device=0, batch=0, extra="", **parameters):
    """Multiplies X by a factor, on a GPU."""
    text = f'name: "{name}"\nbackend: "guarded"\nmax_batch_size: {batch}\n' + io("input", "X", "FP32", "-1")
    text += io("output", "Y", "FP32", "-1") + io("output", "WHERE", "UINT64", "2")
    for key, value in {"factor": factor, **parameters}.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text + f"instance_group [ {{ kind: KIND_GPU gpus: [ {device} ] }} ]\n" + extra


def chain(name, *models, batch=0):
    """The models one after the other; OUT is the result, WHERE0, WHERE1 … are where they read and wrote."""
    steps, outputs, tensor = [], [("OUT", "FP32", "-1")], "IN"
    for number, model in enumerate(models):
        following = "OUT" if number + 1 == len(models) else f"t{number}"
        if model.startswith("cpu"):
            steps.append(step(model, {"INPUT0": tensor}, {"OUTPUT0": following}))
        else:
            steps.append(step(model, {"X": tensor}, {"Y": following, "WHERE": f"WHERE{number}"}))
            outputs.append((f"WHERE{number}", "UINT64", "2"))
        tensor = following
    return ensemble(name, [("IN", "FP32", "-1")], outputs, *steps, batch=batch)


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    """Those that are built, and `guarded`, which is an example of the tests and is not installed with them."""
    folder = tmp_path_factory.mktemp("backends")
    for installed in BACKENDS.iterdir():
        assert installed.name != "guarded", f"{installed} is a leftover"
        (folder / installed.name).symlink_to(installed)
    library = TARGET / "examples" / "libtrireme_guarded.so"
    assert library.is_file(), "cargo build --release -p trireme-tests --examples"
    (folder / "guarded").mkdir()
    (folder / "guarded" / library.name).symlink_to(library)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("devices")
    models = {
        "double": guarded("double", 2), "triple": guarded("triple", 3), "other": guarded("other", 5, device=1),
        "asked": guarded("asked", 7, output="asked"), "slow": guarded("slow", 2, delay_ms=100),
        "slowly": guarded("slowly", 2, delay_ms=100, output="asked"),
        "broken": guarded("broken", 2, broken="true"), "cpu": identity("cpu", batch=0),
        "caller": identity("caller", batch=0).replace('"identity"', '"caller"').replace("INPUT0", "X").replace("OUTPUT0", "Y")
                  + io("output", "WHERE", "UINT64", "2") + 'parameters { key: "model" value { string_value: "slow" } }\nparameters { key: "mode" value { string_value: "then" } }\n',
        "cached": guarded("cached", 11, extra="response_cache { enable: true }\n"),
        "two": chain("two", "double", "triple"), "staged": chain("staged", "double", "cpu", "triple"),
        "across": chain("across", "double", "other"), "asking": chain("asking", "asked", "asked"),
        "waiting": chain("waiting", "slow", "triple", "cpu"), "failing": chain("failing", "broken", "cpu"),
        "unread": chain("unread", "broken", "triple"), "keeping": chain("keeping", "double", "cached", "triple"),
        "nested": ensemble("nested", [("IN", "FP32", "-1")], [("OUT", "FP32", "-1"), ("FROM", "UINT64", "2"), ("TO", "UINT64", "2")],
                           step("two", {"IN": "IN"}, {"OUT": "middle", "WHERE1": "FROM"}),
                           step("two", {"IN": "middle"}, {"OUT": "OUT", "WHERE0": "TO"}), batch=0),
        "both": ensemble("both", [("IN", "FP32", "-1")], [("SEEN", "FP32", "-1"), ("OUT", "FP32", "-1"), ("COPY", "FP32", "-1")],
                         step("double", {"X": "IN"}, {"Y": "SEEN"}), step("triple", {"X": "SEEN"}, {"Y": "OUT"}),
                         step("cpu", {"INPUT0": "SEEN"}, {"OUTPUT0": "COPY"}), batch=0),
    }
    for name, config in models.items():
        write_model(repository, name, config)
    return repository


@pytest.fixture(scope="module")
def server(repository, backends):
    with Server(repository, "--model-control-mode", "explicit", "--load-model", "*", "--cache-config", "local,size=1048576",
                env={"TRIREME_ABI_CHECK": "1"}, backends=backends) as server:
        yield server
        server.alive()
        assert "broke the rule" not in server.output()
        assert quiet(server)["guarded_misuses"] == 0, server.output()


def clients(server):
    return [(httpclient, httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", concurrency=4)),
            (grpcclient, grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}"))]


def ask(module, client, model, value, name="IN", **options):
    tensor = module.InferInput(name, list(value.shape), "FP32")
    tensor.set_data_from_numpy(value)
    return client.infer(model, [tensor], **options)


def server_metrics(server):
    return urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()


def metrics(server):
    text = server_metrics(server)
    lines = re.findall(r"^(guarded_\w+|trireme_copied_bytes_total|trireme_device_copied_bytes_total\S*) (\S+)$", text, re.MULTILINE)
    return {re.sub(r'.*way="(\w+)".*', r"\1", name): int(float(value)) for name, value in lines}


def quiet(server):
    """The metrics once nothing of the devices is in use any more. Parts of a GPU's pool that were given back before their events
    keep those until the pool is next used, so it is used; what that leaves is one for each GPU."""
    end = time.monotonic() + 20
    module, client = clients(server)[0]
    while True:
        now = metrics(server)
        if now["guarded_events"] <= 2:
            return now
        assert time.monotonic() < end, now
        ask(module, client, "two", VALUE)


def moved(before, after):
    return {way: after[way] - before[way] for way in ("to_host", "to_device", "between")}


VALUE = np.arange(N, dtype=np.float32)


def test_a_step_reads_what_the_step_before_left_on_the_device(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "two", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 6)
        first, second = result.as_numpy("WHERE0"), result.as_numpy("WHERE1")
        assert second[0] == first[1] != 0, "the same address"
        # Up for the first step, down for the client, and nothing in between.
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 4 * N, "between": 0}


def test_memory_that_the_server_gives_is_on_the_device_for_a_step_and_pinned_for_a_client(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "asking", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 49)
        assert result.as_numpy("WHERE1")[0] == result.as_numpy("WHERE0")[1] != 0
        # The last step wrote where the client reads.
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 0, "between": 0}


def test_a_step_on_the_cpu_between_gets_a_copy(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "staged", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 6)
        assert result.as_numpy("WHERE2")[0] == 0
        assert moved(before, metrics(server)) == {"to_device": 8 * N, "to_host": 8 * N, "between": 0}


def test_another_device_gets_a_copy_of_its_own(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "across", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 10)
        assert result.as_numpy("WHERE1")[0] not in (0, result.as_numpy("WHERE0")[1])
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 4 * N, "between": 4 * N}


def test_several_readers_share_one_copy(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "both", VALUE)
        for name, factor in (("SEEN", 2), ("OUT", 6), ("COPY", 2)):
            assert np.array_equal(result.as_numpy(name), VALUE * factor)
        # SEEN once, for the client and the step on the CPU, and OUT.
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 8 * N, "between": 0}


def test_an_ensemble_in_an_ensemble_hands_it_on(server):
    for module, client in clients(server):
        before = metrics(server)
        result = ask(module, client, "nested", VALUE)
        assert np.array_equal(result.as_numpy("OUT"), VALUE * 36)
        assert result.as_numpy("TO")[0] == result.as_numpy("FROM")[1] != 0
        assert moved(before, metrics(server)) == {"to_device": 4 * N, "to_host": 4 * N, "between": 0}


def test_caches_and_callers_read_copies(server):
    for module, client in clients(server):
        for _ in range(2):
            assert np.array_equal(ask(module, client, "keeping", VALUE).as_numpy("OUT"), VALUE * 66)
        assert np.array_equal(ask(module, client, "caller", VALUE, "X").as_numpy("Y"), VALUE * 2)
    _, _, body = server.raw("GET", "/v2/models/cached/stats")
    assert json.loads(body)["model_stats"][0]["inference_stats"]["cache_hit"]["count"] >= 3


def test_only_what_is_asked_for_is_copied(server):
    for module, client in clients(server):
        # The kernel still writes Y, that of the backend or that of the server, when nobody has wanted it.
        for model in ("double", "slow", "slowly"):
            before = metrics(server)
            result = ask(module, client, model, VALUE, "X", outputs=[module.InferRequestedOutput("WHERE")])
            assert result.as_numpy("Y") is None and result.as_numpy("WHERE")[1] != 0
            assert moved(before, metrics(server))["to_host"] == 0, model
    assert quiet(server)["guarded_misuses"] == 0


def test_a_copy_that_fails_is_the_error_of_its_request(server):
    for module, client in clients(server):
        with pytest.raises(Exception, match=r"4000 bytes could not be copied from GPU 0 to the memory of the process: an uncorrectable error"):
            ask(module, client, "failing", VALUE)
        # Nobody copies it here.
        assert np.array_equal(ask(module, client, "unread", VALUE).as_numpy("OUT"), VALUE * 6)
    server.alive()


def test_nothing_stays_behind(server):
    module, client = clients(server)[1]
    for model in ("two", "staged", "across", "asking", "both"):
        ask(module, client, model, VALUE)
    before = quiet(server)

    def many(model):
        own = grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}")
        for _ in range(25):
            ask(grpcclient, own, model, VALUE)

    threads = [threading.Thread(target=many, args=(model,)) for model in ("two", "staged", "across", "asking", "both")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = quiet(server)
    assert after["guarded_bytes"] == before["guarded_bytes"]


def test_cancelled_and_expired_requests_give_everything_back(server):
    module, client = clients(server)[1]
    ask(module, client, "waiting", VALUE)
    before = quiet(server)
    tensor = module.InferInput("IN", [N], "FP32")
    tensor.set_data_from_numpy(VALUE)
    for number in range(12):
        done = threading.Event()
        call = client.async_infer("waiting", [tensor], lambda result, error, done=done: done.set())
        time.sleep(0.01 * number)
        call.cancel()
        assert done.wait(20)
    for _ in range(4):
        with pytest.raises(Exception, match="Deadline|DEADLINE"):
            client.infer("waiting", [tensor], client_timeout=0.05)
    ask(module, client, "waiting", VALUE)
    after = quiet(server)
    assert after["guarded_bytes"] == before["guarded_bytes"]


def test_a_model_is_unloaded_while_its_memory_is_in_use(server):
    module, client = clients(server)[1]
    ask(module, client, "waiting", VALUE)
    before = quiet(server)
    for _ in range(3):
        answers = []
        calls = [threading.Thread(target=lambda: answers.append(ask(module, client, "slow", VALUE, "X").as_numpy("Y"))) for _ in range(3)]
        for call in calls:
            call.start()
        time.sleep(0.05)
        status, _, body = server.raw("POST", "/v2/repository/models/slow/unload", b'{"parameters": {"unload_dependents": true}}')
        assert status == 200, body
        for call in calls:
            call.join()
        # Those that came in before it was gone.
        assert all(np.array_equal(answer, VALUE * 2) for answer in answers) and answers
        for model in ("slow", "waiting"):
            status, _, body = server.raw("POST", f"/v2/repository/models/{model}/load")
            assert status == 200, body
    after = quiet(server)
    assert after["guarded_bytes"] == before["guarded_bytes"]


def test_large_tensors_leave_the_process_as_it_was(repository, backends):
    value = np.ones(2 << 20, np.float32)
    flags = ["--model-control-mode", "explicit", "--load-model", "two", "--load-model", "staged"]
    pools = ["--pinned-memory-pool-byte-size", str(20 << 20), "--cuda-memory-pool-byte-size", f"0:{20 << 20}"]
    # With pools and without them.
    for pool in (pools, ["--pinned-memory-pool-byte-size=0", "--cuda-memory-pool-byte-size=0:0"]):
        with Server(repository, *flags, *pool, backends=backends) as server:
            module, client = clients(server)[1]
            for model in ("two", "staged"):
                ask(module, client, model, value)
            before, grown = quiet(server), []
            # The C library may keep a block or two more for a thread that it has not met yet: once, not in both rounds.
            for _ in range(2):
                resident = memory(server, "VmRSS")
                for _ in range(6):
                    for model in ("two", "staged"):
                        assert ask(module, client, model, value).as_numpy("OUT")[-1] == 6
                after = quiet(server)
                assert after["guarded_bytes"] == before["guarded_bytes"]
                grown.append(memory(server, "VmRSS") - resident)
            assert min(grown) < value.nbytes, grown
            assert after["guarded_misuses"] == 0


def client_memory(length):
    """Memory of GPU 0 as a client has it: what it may touch, and the handle."""
    file = os.memfd_create("guarded")
    os.ftruncate(file, length)
    handle = struct.pack("<II", os.getpid(), file).ljust(64, b"\0")
    return mmap.mmap(file, length), handle, file


def test_tensors_in_cuda_shared_memory(repository, backends):
    with Server(repository, "--model-control-mode", "explicit", "--load-model", "*", "--allow-client-shm=true", backends=backends) as server:
        memory, handle, file = client_memory(1 << 16)
        for module, client in clients(server):
            encoded = base64.b64encode(handle)
            client.register_cuda_shared_memory("region", encoded, 0, 1 << 16)
            listed = client.get_cuda_shared_memory_status("region")
            one = listed[0] if module is httpclient else listed.regions["region"]
            if module is httpclient:
                assert one == {"name": "region", "device_id": 0, "byte_size": 1 << 16}
            else:
                assert (one.name, one.device_id, one.byte_size) == ("region", 0, 1 << 16)
            assert not (client.get_system_shared_memory_status() if module is httpclient else client.get_system_shared_memory_status().regions)
            for model, name, out, factor in (("double", "X", "Y", 2), ("staged", "IN", "OUT", 6), ("cpu", "INPUT0", "OUTPUT0", 1)):
                memory[256:256 + 4 * N] = VALUE.tobytes()
                before = metrics(server)
                tensor = module.InferInput(name, [N], "FP32")
                tensor.set_shared_memory("region", 4 * N, 256)
                result = client.infer(model, [tensor])
                assert np.array_equal(result.as_numpy(out), VALUE * factor), model
                if model == "double":
                    # Read where the client put it.
                    assert result.as_numpy("WHERE")[0] != 0 and moved(before, metrics(server))["to_device"] == 0
                wanted = module.InferRequestedOutput(out)
                wanted.set_shared_memory("region", 4 * N, 16384)
                client.infer(model, [tensor], outputs=[wanted])
                assert np.array_equal(np.frombuffer(memory[16384:16384 + 4 * N], np.float32), VALUE * factor), model
            tensor.set_shared_memory("region", 4 * N, (1 << 16) - 4)
            with pytest.raises(Exception, match="Invalid offset . byte size for shared memory region: 'region'"):
                client.infer("cpu", [tensor])
            with pytest.raises(Exception, match="'region' already in manager"):
                client.register_cuda_shared_memory("region", encoded, 0, 1 << 16)
            for bad, device, length, says in ((b"short", 0, 8, "it has 5 bytes, not 64"), (handle, 0, 1 << 20, "the allocation has 65536 bytes"),
                                              (handle, 9, 8, "GPUs not supported"), (bytes(64), 0, 8, "the handle is none")):
                with pytest.raises(Exception, match=f"failed to register CUDA shared memory region: 'bad', .*{says}"):
                    client.register_cuda_shared_memory("bad", base64.b64encode(bad), device, length)
            client.unregister_system_shared_memory()
            assert client.get_cuda_shared_memory_status("region")
            client.unregister_cuda_shared_memory("region")
            with pytest.raises(Exception, match="Unable to find cuda shared memory region: 'region'"):
                client.get_cuda_shared_memory_status("region")
        memory.close()
        os.close(file)
        server.alive()
        assert quiet(server)["guarded_misuses"] == 0


@pytest.fixture(scope="module")
def one_thread(tmp_path_factory, backends):
    """A server whose front ends have one thread, with a region of memory of GPU 0; `hold` holds up all copies."""
    repository = tmp_path_factory.mktemp("hold")
    os.mkfifo(repository / "gate")
    cache = "response_cache { enable: true }\n"
    for name, config in {
        "hold": guarded("hold", 1, hold=repository / "gate"), "double": guarded("double", 2),
        "text": identity("text", "STRING", batch=0), "cpu": identity("cpu", batch=0), "known": identity("known", batch=0, extra=cache),
        "steps": chain("steps", "cpu2", "double"), "cpu2": identity("cpu2", batch=0, extra=cache),
        "late": identity("late", batch=0, extra='parameters { key: "execute_delay_ms" value { string_value: "700" } }\n'),
    }.items():
        write_model(repository, name, config)
    with Server(repository, "--http-thread-count=1", "--allow-client-shm=true", "--cache-config", "local,size=1048576", backends=backends) as server:
        memory, handle, file = client_memory(1 << 16)
        clients(server)[1][1].register_cuda_shared_memory("region", base64.b64encode(handle), 0, 1 << 16)
        yield server, memory, repository / "gate"
        server.alive()
        assert quiet(server)["guarded_misuses"] == 0
        memory.close()
        os.close(file)


@contextlib.contextmanager
def copies_held(server, gate):
    """No copy to or from a device ends within."""
    holder = threading.Thread(target=lambda: ask(grpcclient, clients(server)[1][1], "hold", VALUE, "X"))
    holder.start()
    end = time.monotonic() + 20
    while True:
        try:
            # Refused until the stream of copies has come there.
            writer = os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            assert error.errno == errno.ENXIO and time.monotonic() < end, error
            time.sleep(0.005)
    try:
        yield
    finally:
        os.close(writer)
        holder.join()


def others_are_answered(server):
    """Connections of others, which are served by the same thread, for as long as a call needs to come to its copy."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert server.raw("GET", "/v2/health/ready", timeout=10)[0] == 200
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            assert client.is_server_ready(client_timeout=10)


TEXT = np.array([b"one", b"", b"three"], np.object_)


def in_region(module, name, dtype, shape, length, offset=0):
    tensor = module.InferInput(name, shape, dtype)
    tensor.set_shared_memory("region", length, offset)
    return tensor


@pytest.mark.parametrize("call", ["http text", "grpc text", "grpc known", "grpc steps"])
def test_a_copy_for_one_call_holds_up_no_other(one_thread, call):
    server, memory, gate = one_thread
    kind, model = call.split()
    text = serialize_byte_tensor(TEXT).item()
    memory[:len(text)] = text
    # Never seen before, so that no cache has it.
    value = np.full(N, len(call), np.float32)
    memory[4096:4096 + 4 * N] = value.tobytes()
    answers = []

    def over_http():
        place = {"shared_memory_region": "region", "shared_memory_offset": 0, "shared_memory_byte_size": len(text)}
        body = {"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [3], "parameters": place}]}
        status, _, answer = server.raw("POST", f"/v2/models/{model}/infer", json.dumps(body).encode())
        answers.append((status, json.loads(answer).get("outputs", [answer])[0]))

    def over_grpc():
        client = clients(server)[1][1]
        tensor = in_region(grpcclient, "INPUT0", "BYTES", [3], len(text)) if model == "text" \
            else in_region(grpcclient, "IN" if model == "steps" else "INPUT0", "FP32", [N], 4 * N, 4096)
        answers.append(client.infer(model, [tensor]).as_numpy("OUT" if model == "steps" else "OUTPUT0"))

    caller = threading.Thread(target=over_http if kind == "http" else over_grpc)
    with copies_held(server, gate):
        caller.start()
        others_are_answered(server)
        assert not answers
    caller.join()
    if kind == "http":
        assert answers[0][0] == 200 and answers[0][1]["data"] == ["one", "", "three"], answers
    else:
        assert np.array_equal(answers[0], TEXT if model == "text" else value * (2 if model == "steps" else 1))


def executions(server, model):
    return json.loads(server.raw("GET", f"/v2/models/{model}/stats")[2])["model_stats"][0]["inference_count"]


def test_copies_for_a_stream_hold_up_nobody_and_keep_its_order(one_thread):
    server, memory, gate = one_thread
    text = serialize_byte_tensor(TEXT).item()
    memory[:len(text)] = text
    answers = queue.Queue()
    client = clients(server)[1][1]
    client.start_stream(lambda result, error: answers.put((result, error)))
    plain = grpcclient.InferInput("INPUT0", [N], "FP32")
    plain.set_data_from_numpy(VALUE)
    before = executions(server, "cpu")
    with copies_held(server, gate):
        client.async_stream_infer("text", [in_region(grpcclient, "INPUT0", "BYTES", [3], len(text))], request_id="first")
        client.async_stream_infer("cpu", [plain], request_id="second")
        others_are_answered(server)
        # It does not overtake the first one on the way to its model.
        assert answers.empty() and executions(server, "cpu") == before
    results = [answers.get(timeout=20) for _ in range(2)]
    assert [error for _, error in results] == [None, None]
    assert [result.get_response().id for result, _ in results] == ["first", "second"]
    assert np.array_equal(results[0][0].as_numpy("OUTPUT0"), TEXT) and np.array_equal(results[1][0].as_numpy("OUTPUT0"), VALUE)
    # Outputs are written to the GPU, and the answer says so only then.
    wanted = grpcclient.InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory("region", 4 * N, 16384)
    memory[16384:16384 + 4 * N] = bytes(4 * N)
    with copies_held(server, gate):
        client.async_stream_infer("cpu", [plain], outputs=[wanted], request_id="third")
        client.async_stream_infer("cpu", [plain], request_id="fourth")
        others_are_answered(server)
        assert answers.empty()
    results = [answers.get(timeout=20) for _ in range(2)]
    assert [(result.get_response().id, error) for result, error in results] == [("third", None), ("fourth", None)]
    assert np.array_equal(np.frombuffer(memory[16384:16384 + 4 * N], np.float32), VALUE)
    # Who goes away meanwhile takes nothing along.
    with copies_held(server, gate):
        client.async_stream_infer("text", [in_region(grpcclient, "INPUT0", "BYTES", [3], len(text))])
        client.async_stream_infer("cpu", [plain], outputs=[wanted])
        others_are_answered(server)
        client.stop_stream(cancel_requests=True)
    client.unregister_cuda_shared_memory("none")
    assert client.get_cuda_shared_memory_status("region")


def test_a_region_that_goes_with_a_call_holds_up_no_other(one_thread):
    server, _, gate = one_thread
    _, handle, file = client_memory(1 << 16)
    client = clients(server)[1][1]
    client.register_cuda_shared_memory("going", base64.b64encode(handle), 0, 1 << 16)
    plain, wanted, ended = grpcclient.InferInput("INPUT0", [N], "FP32"), grpcclient.InferRequestedOutput("OUTPUT0"), queue.Queue()
    plain.set_data_from_numpy(VALUE)
    wanted.set_shared_memory("going", 4 * N)
    calls = [client.async_infer("late", [plain], lambda result, error: ended.put(error), outputs=[wanted]) for _ in range(2)]
    # One runs, so the other one waits and has its region.
    end = time.monotonic() + 20
    while not re.search(r'^nv_inference_pending_request_count\{model="late".*\} 1$', server_metrics(server), re.MULTILINE):
        assert time.monotonic() < end
    client.unregister_cuda_shared_memory("going")
    assert client.get_cuda_shared_memory_status("going"), "it is in use"
    with copies_held(server, gate):
        # Whoever was the last to use it closes it, which waits for the copies.
        for call in calls:
            call.cancel()
        assert all("cancelled" in str(ended.get(timeout=20)).lower() for _ in calls)
        others_are_answered(server)
    with pytest.raises(Exception, match="Unable to find cuda shared memory region: 'going'"):
        client.get_cuda_shared_memory_status("going")
    os.close(file)


def test_the_extension_is_listed_once_a_provider_is_there(repository, backends):
    with Server(repository, "--model-control-mode", "explicit", backends=backends) as server:
        def listed():
            both = [json.loads(server.raw("GET", "/v2")[2])["extensions"], list(clients(server)[1][1].get_server_metadata().extensions)]
            assert both[0] == both[1]
            return both[0]
        assert "cuda_shared_memory" not in listed()
        assert server.raw("POST", "/v2/repository/models/double/load")[0] == 200
        names = listed()
        assert names[names.index("system_shared_memory") + 1] == "cuda_shared_memory"


def test_without_a_provider_a_model_on_a_gpu_is_told_so(tmp_path):
    write_model(tmp_path, "m", identity("m") + "instance_group [ { kind: KIND_GPU } ]\n")
    with Server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as server:
        _, _, body = server.raw("POST", "/v2/repository/index")
        assert "GPU instances not supported" in json.loads(body)[0]["reason"]
