"""System shared memory by the real clients: tensors in and out, bounds, and regions that are in use."""
import json
import os
import threading
import time
import uuid

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm
from trireme_server import Server, identity, write_model

MODULES = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("shm")
    write_model(repository, "identity", identity())
    write_model(repository, "identity_bytes", identity("identity_bytes", "STRING", "-1", 8))
    write_model(repository, "slow", identity("slow", parameters={"execute_delay_ms": 700}))
    return repository


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository, "--allow-client-shm=true") as server:
        yield server
        server.alive()


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    module = MODULES[request.param]
    address = f"127.0.0.1:{getattr(server, request.param)}"
    with module.InferenceServerClient(address) as client:
        client.kind, client.module, client.address = request.param, module, address
        yield client
        client.unregister_system_shared_memory()


@pytest.fixture
def region():
    """Makes shared memory objects and takes them away again."""
    made = []

    def make(size, name=None):
        key = f"/trireme_{os.getpid()}_{uuid.uuid4().hex}"
        handle = shm.create_shared_memory_region(name or key[1:], key, size)
        made.append(handle)
        return handle, key

    yield make
    for handle in made:
        shm.destroy_shared_memory_region(handle)


def statuses(client):
    if client.kind == "http":
        return {one["name"]: one for one in client.get_system_shared_memory_status()}
    answer = client.get_system_shared_memory_status(as_json=True)
    return {name: one for name, one in answer.get("regions", {}).items()}


def shared_input(client, name, shape, datatype, size, offset=0):
    tensor = client.module.InferInput("INPUT0", shape, datatype)
    tensor.set_shared_memory(name, size, offset)
    return tensor


def test_tensors_go_in_and_out(client, region):
    array = np.arange(64, dtype=np.float32).reshape(4, 16)
    handle, key = region(4096)
    shm.set_shared_memory_region(handle, [array], offset=256)
    client.register_system_shared_memory("r", key, 4096 - 128, offset=128)
    output = client.module.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("r", 1024, 1024)
    result = client.infer("identity", [shared_input(client, "r", [4, 16], "FP32", 256, 128)], outputs=[output])
    answered = result.get_output("OUTPUT0")
    if client.kind == "http":
        # As tritonserver: its C++ client cannot read an answer that says more.
        assert answered == {"name": "OUTPUT0", "datatype": "FP32", "shape": [4, 16]}
    else:
        assert answered.parameters["shared_memory_region"].string_param == "r"
        assert answered.parameters["shared_memory_byte_size"].int64_param == 256
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [4, 16], offset=128 + 1024), array)


def test_one_side_shared_the_other_sent(client, region):
    array = np.ones((1, 8), np.float32)
    handle, key = region(64)
    client.register_system_shared_memory("r", key, 64)
    sent = client.module.InferInput("INPUT0", [1, 8], "FP32")
    sent.set_data_from_numpy(array * 3)
    output = client.module.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("r", 32)
    client.infer("identity", [sent], outputs=[output])
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 8]), array * 3)
    result = client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", 32)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array * 3)


def test_a_large_tensor(client, region):
    array = np.random.default_rng(3).standard_normal((1, 3 << 20)).astype(np.float32)
    handle, key = region(array.nbytes)
    shm.set_shared_memory_region(handle, [array])
    client.register_system_shared_memory("r", key, array.nbytes)
    output = client.module.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("r", array.nbytes)
    client.infer("identity", [shared_input(client, "r", list(array.shape), "FP32", array.nbytes)], outputs=[output])
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, array.shape), array)


def test_strings(client, region):
    texts = np.array([["a", "", "zwölf"]], dtype=np.object_)
    packed = httpclient.InferInput("X", [1, 3], "BYTES")
    packed.set_data_from_numpy(texts)
    raw = np.frombuffer(packed._get_binary_data(), np.uint8)
    handle, key = region(256)
    shm.set_shared_memory_region(handle, [raw])
    client.register_system_shared_memory("r", key, 256)
    result = client.infer("identity_bytes", [shared_input(client, "r", [1, 3], "BYTES", len(raw))])
    assert [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("OUTPUT0")[0]] == list(texts[0])
    with pytest.raises(Exception, match="incomplete length|expected 3 elements"):
        client.infer("identity_bytes", [shared_input(client, "r", [1, 3], "BYTES", len(raw) + 1)])


def test_streams(server, region):
    import queue
    answers = queue.Queue()
    array = np.arange(8, dtype=np.float32).reshape(1, 8)
    handle, key = region(128)
    shm.set_shared_memory_region(handle, [array])
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.kind, client.module = "grpc", grpcclient
        client.register_system_shared_memory("stream", key, 128)
        client.start_stream(lambda result, error: answers.put((result, error)))
        output = grpcclient.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory("stream", 32, 64)
        short = grpcclient.InferRequestedOutput("OUTPUT0")
        short.set_shared_memory("stream", 31, 64)
        for wanted in (output, short):
            client.async_stream_infer("identity", [shared_input(client, "stream", [1, 8], "FP32", 32)], outputs=[wanted])
        result, error = answers.get(timeout=30)
        assert error is None, error
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 8], offset=64), array)
        assert "should be at least 32 bytes to hold the results" in str(answers.get(timeout=30)[1])
        client.stop_stream()
        client.unregister_system_shared_memory()


def test_status(client, region):
    _, key = region(100)
    assert statuses(client) == {}
    client.register_system_shared_memory("a", key, 60, offset=40)
    client.register_system_shared_memory("b", key, 100)
    assert set(statuses(client)) == {"a", "b"}
    one = statuses(client)["a"]
    assert one["key"] == key and int(one["offset"]) == 40 and int(one["byte_size"]) == 60
    client.unregister_system_shared_memory("a")
    assert set(statuses(client)) == {"b"}
    with pytest.raises(Exception, match="Unable to find system shared memory region: 'a'"):
        client.get_system_shared_memory_status("a")
    client.unregister_system_shared_memory("nobody")
    client.unregister_system_shared_memory()
    assert statuses(client) == {}


BIG = (1 << 64) - 1


@pytest.mark.parametrize("offset, size", [(0, 101), (101, 1), (100, 0), (BIG, 1), (1, BIG), (1 << 63, 1 << 63), (0, 0)])
def test_bounds_at_registration(client, region, offset, size):
    _, key = region(100)
    with pytest.raises(Exception, match="failed to register shared memory region 'r': invalid args"):
        client.register_system_shared_memory("r", key, size, offset=offset)
    assert statuses(client) == {}


@pytest.mark.parametrize("offset, size, says", [
    (100, 32, "Invalid offset for shared memory region"),
    (69, 32, r"Invalid offset \+ byte size for shared memory region"),
    ((1 << 63) - 1, 32, "Invalid offset for shared memory region"),
])
def test_bounds_at_use(client, region, offset, size, says):
    _, key = region(100)
    client.register_system_shared_memory("r", key, 100)
    with pytest.raises(Exception, match=says):
        client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", size, offset)])
    output = client.module.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("r", size, offset)
    with pytest.raises(Exception, match=says):
        client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", 32)], outputs=[output])


def test_sizes_that_do_not_fit_the_shape(client, region):
    _, key = region(100)
    client.register_system_shared_memory("r", key, 100)
    with pytest.raises(Exception, match="byte size mismatch"):
        client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", 31)])
    output = client.module.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("r", 31)
    with pytest.raises(Exception, match=r"output 'OUTPUT0' \(31 bytes\) should be at least 32 bytes to hold the results"):
        client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", 32)], outputs=[output])


def test_what_cannot_be_registered(client, region):
    _, key = region(100)
    client.register_system_shared_memory("r", key, 100)
    for name, bad, says in [
        ("r", key, "shared memory region 'r' already in manager"),
        ("x", "/trireme_nobody_made_this", "Unable to open shared memory region: '/trireme_nobody_made_this'"),
        ("x", "//triton_python_backend_shm_region_1", "reserved prefix"),
        ("x", "/../etc/passwd", "invalid shm key"),
        ("x", "/", "invalid shm key"),
    ]:
        with pytest.raises(Exception, match=says):
            client.register_system_shared_memory(name, bad, 10)
    with pytest.raises(Exception, match="Unable to find shared memory region: 'nobody'"):
        client.infer("identity", [shared_input(client, "nobody", [1, 8], "FP32", 32)])


def test_a_region_in_use_stays_until_its_request_ends(client, region):
    array = np.ones((1, 8), np.float32)
    handle, key = region(128)
    shm.set_shared_memory_region(handle, [array])
    client.register_system_shared_memory("r", key, 128)
    output = client.module.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("r", 32, 64)
    done = []

    def infer():
        with client.module.InferenceServerClient(client.address) as own:
            own.infer("slow", [shared_input(client, "r", [1, 8], "FP32", 32)], outputs=[output])
            done.append(True)

    thread = threading.Thread(target=infer)
    thread.start()
    time.sleep(0.3)
    client.unregister_system_shared_memory("r")
    assert not done and set(statuses(client)) == {"r"}
    with pytest.raises(Exception, match="Unable to find shared memory region"):
        client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", 32)])
    thread.join()
    assert done and statuses(client) == {}
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 8], offset=64), array)


def test_a_client_that_shortens_its_object_harms_nobody_else(client, region):
    _, key = region(8192)
    client.register_system_shared_memory("r", key, 8192)
    with open(f"/dev/shm{key}", "r+b") as file:
        file.truncate(16)
    with pytest.raises(Exception, match="is shorter than it was when it was registered"):
        client.infer("identity", [shared_input(client, "r", [1, 8], "FP32", 32)])


def test_a_link_out_of_the_directory_is_not_followed(client, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 64)
    link = f"trireme_{uuid.uuid4().hex}"
    os.symlink(secret, f"/dev/shm/{link}")
    try:
        with pytest.raises(Exception, match=f"Unable to open shared memory region: '{link}'"):
            client.register_system_shared_memory("r", link, 64)
    finally:
        os.unlink(f"/dev/shm/{link}")


def test_an_object_longer_than_memory_is_no_bomb(client, region):
    _, key = region(64)
    with open(f"/dev/shm{key}", "r+b") as file:
        file.truncate(1 << 44)
    client.register_system_shared_memory("r", key, 1 << 44)
    with pytest.raises(Exception, match="exceed the maximum allowed value"):
        client.infer("identity", [shared_input(client, "r", [1, 1 << 42], "FP32", 1 << 44)])


def test_cuda_is_refused(server):
    handle = json.dumps({"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8}).encode()
    status, _, body = server.raw("POST", "/v2/cudasharedmemory/region/c/register", handle)
    text = "failed to register CUDA shared memory region: 'c', GPUs not supported"
    assert (status, json.loads(body)["error"]) == (400, text)
    assert server.raw("GET", "/v2/cudasharedmemory/status")[2] == b"[]"
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        with pytest.raises(Exception, match="GPUs not supported") as refused:
            client.register_cuda_shared_memory("c", b"AAAA", 0, 8)
        assert "INVALID_ARGUMENT" in str(refused.value.status())
        client.unregister_cuda_shared_memory()
    status, _, body = server.raw("GET", "/v2/cudasharedmemory/region/c/status")
    assert status == 404 and b"Unable to find cuda shared memory region: 'c'" in body


@pytest.mark.parametrize("body, says", [
    (b"{}", "Shared memory register request has no 'key' field"),
    (b'{"key": "/x"}', "Shared memory register request has no 'byte_size' field"),
    (b'{"key": 3, "byte_size": 1}', "'key' must be a string"),
    (b'{"key": "/x", "byte_size": -1}', "'byte_size' must be an unsigned integer"),
    (b'{"key": "/x", "byte_size": 1, "offset": 1.5}', "'offset' must be an unsigned integer"),
    (b"[" * 5000, "failed to parse"),
])
def test_register_bodies(server, body, says):
    status, _, answer = server.raw("POST", "/v2/systemsharedmemory/region/x/register", body)
    assert status == 400 and says in json.loads(answer)["error"]


def test_it_is_off_unless_it_is_allowed(repository):
    text = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
    with Server(repository) as server:
        body = json.dumps({"key": "/x", "byte_size": 1}).encode()
        for path in ("systemsharedmemory/region/x/register", "systemsharedmemory/unregister",
                     "cudasharedmemory/region/x/register", "cudasharedmemory/unregister"):
            status, _, answer = server.raw("POST", f"/v2/{path}", body)
            assert (status, json.loads(answer)["error"]) == (501, text)
        assert server.raw("GET", "/v2/systemsharedmemory/status")[2] == b"[]"
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            with pytest.raises(Exception, match="Client shared memory is disabled") as refused:
                client.register_system_shared_memory("x", "/x", 1)
            assert "UNIMPLEMENTED" in str(refused.value.status())
            assert not client.get_system_shared_memory_status().regions
