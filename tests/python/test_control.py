"""Health, metadata, configuration, index, load, unload and statistics by the real tritonclient."""
import concurrent.futures
import json
import threading
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from trireme_server import Server, identity, write_model


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    module = {"http": httpclient, "grpc": grpcclient}[request.param]
    with module.InferenceServerClient(f"127.0.0.1:{getattr(server, request.param)}") as client:
        client.kind = request.param
        client.module = module
        yield client


def as_json(client, method, *args):
    return getattr(client, method)(*args) if client.kind == "http" else getattr(client, method)(*args, as_json=True)


def run(client, model="simple"):
    array = np.ones((1, 16), np.int32)
    inputs = []
    for name in ("INPUT0", "INPUT1"):
        one = client.module.InferInput(name, [1, 16], "INT32")
        one.set_data_from_numpy(array)
        inputs.append(one)
    return client.infer(model, inputs)


def test_health(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    for name, version in (("simple", "9"), ("nowhere", "")):
        assert not client.is_model_ready(name, version)


def test_metadata(client):
    server = as_json(client, "get_server_metadata")
    assert server["name"] == "triton" and "binary_tensor_data" in server["extensions"]
    model = as_json(client, "get_model_metadata", "simple")
    assert model["versions"] == ["1"] and model["platform"] == "add_sub"
    shape = [int(d) for d in model["inputs"][0]["shape"]]
    assert (model["inputs"][0]["name"], model["inputs"][0]["datatype"], shape) == ("INPUT0", "INT32", [-1, 16])


def test_config(client):
    config = as_json(client, "get_model_config", "simple")
    config = config if client.kind == "http" else config["config"]
    assert config["name"] == "simple" and int(config["max_batch_size"]) == 8
    assert config["input"][0]["data_type"] == "TYPE_INT32"


def test_statistics(client):
    def counts():
        stats = as_json(client, "get_inference_statistics", "simple")["model_stats"][0]
        return {
            "inferences": int(stats.get("inference_count", 0)),
            "executions": int(stats.get("execution_count", 0)),
            "success": int(stats["inference_stats"]["success"].get("count", 0)),
        }
    before = counts()
    for _ in range(5):
        run(client)
    after = counts()
    assert {key: after[key] - before[key] for key in before} == {"inferences": 5, "executions": 5, "success": 5}


def test_repositories_cannot_be_registered(server):
    for path in ("/v2/repository/register", "/v2/repository/unregister"):
        status, _, _ = server.raw("POST", path, b"{}")
        assert status == 404


def test_index_load_unload(small_repository, tmp_path):
    write_model(tmp_path, "one", identity("one"))
    write_model(tmp_path, "two", identity("two"))
    with Server(tmp_path, "--model-control-mode=explicit", "--load-model=one") as server:
        for module, port in ((httpclient, server.http), (grpcclient, server.grpc)):
            with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
                client.kind = "http" if module is httpclient else "grpc"

                def index():
                    lines = as_json(client, "get_model_repository_index")
                    lines = lines if client.kind == "http" else lines["models"]
                    return {line["name"]: line.get("state") for line in lines}

                assert index() == {"one": "READY", "two": index()["two"]} and index()["two"] != "READY"
                client.load_model("two")
                assert index() == {"one": "READY", "two": "READY"}
                client.unload_model("two")
                assert index()["two"] in ("UNAVAILABLE", "UNLOADING")
                with pytest.raises(Exception, match="no available versions|not at ready"):
                    one = module.InferInput("INPUT0", [1, 1], "FP32")
                    one.set_data_from_numpy(np.zeros((1, 1), np.float32))
                    client.infer("two", [one])
                with pytest.raises(Exception, match="nowhere"):
                    client.load_model("nowhere")
                client.unload_model("nowhere")
                write_model(tmp_path, "two", "max_batch_sizee: 4\n")
                with pytest.raises(Exception, match="max_batch_size"):
                    client.load_model("two")
                # A model that was asked for and failed makes the server not ready, until it is mended or given up.
                assert not client.is_server_ready()
                write_model(tmp_path, "two", identity("two"))
                client.load_model("two")
                client.unload_model("two")
        server.alive()


def test_a_broken_reload_leaves_the_old_model_serving(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path, "--model-control-mode=explicit", "--load-model=m") as server:
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
            write_model(tmp_path, "m", 'backend: "nowhere"\n')
            with pytest.raises(Exception, match="nowhere"):
                client.load_model("m")
            assert client.is_model_ready("m")


def test_reloads_under_load_lose_nothing(tmp_path):
    configs = [identity("m", extra=extra) for extra in ("", "instance_group { count: 2 }\n", "dynamic_batching { }\n")]
    write_model(tmp_path, "m", configs[0])
    with Server(tmp_path, "--model-control-mode=explicit", "--load-model=m") as server:
        done = threading.Event()

        def ask(seed):
            answered, rng = 0, np.random.default_rng(seed)
            with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
                while not done.is_set():
                    array = rng.random((1, 4), np.float32)
                    one = httpclient.InferInput("INPUT0", [1, 4], "FP32")
                    one.set_data_from_numpy(array)
                    assert (client.infer("m", [one]).as_numpy("OUTPUT0") == array).all()
                    answered += 1
            return answered

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, seed) for seed in range(4)]
            try:
                with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
                    for number in range(60):
                        write_model(tmp_path, "m", configs[number % 3])
                        client.load_model("m")
            finally:
                done.set()
            assert sum(one.result() for one in asking) > 60


def test_control_mode_none_refuses_load_and_unload(tmp_path):
    write_model(tmp_path, "m", identity("m"))
    with Server(tmp_path) as server:
        for action in ("load", "unload"):
            status, _, body = server.raw("POST", f"/v2/repository/models/m/{action}", b"")
            assert status == 503 and b"explicit model load / unload is not allowed" in body


def test_version_policy(tmp_path):
    write_model(tmp_path, "m", identity("m", extra="version_policy { specific { versions: [1, 3] } }\n"), versions=(1, 2, 3))
    with Server(tmp_path) as server:
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
            assert client.get_model_metadata("m")["versions"] == ["1", "3"]
            assert client.is_model_ready("m", "1") and client.is_model_ready("m", "3")
            assert not client.is_model_ready("m", "2")


def test_metrics(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10).read().decode()
    assert "# TYPE nv_inference_request_success counter" in text
    assert 'nv_inference_request_failure{model="simple",reason="REJECTED",version="1"} 0' in text
    assert "nv_inference_pending_request_count" in text


def test_the_page(server):
    status, headers, body = server.raw("GET", "/")
    assert status == 200 and "text/html" in headers["Content-Type"] and b"simple" in body and b"READY" in body


def test_the_index_over_raw_http(server):
    status, _, body = server.raw("POST", "/v2/repository/index", b'{"ready": true}')
    assert status == 200 and {line["state"] for line in json.loads(body)} == {"READY"}
