"""Log settings, trace settings, metrics and classification, as clients and scrapers see them."""
import json
import re
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from conftest import REPEAT
from exposition import scrape
from trireme_server import Server, identity, write_model

MODULES = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("observing")
    for dtype in ("FP32", "INT16", "STRING", "FP16", "BOOL", "FP64"):
        name = f"identity_{dtype.lower()}"
        write_model(repository, name, identity(name, dtype))
    write_model(repository, "flat", identity("flat", "FP32", "-1", 0))
    labelled = identity("labelled").replace('name: "OUTPUT0"', 'name: "OUTPUT0" label_filename: "labels.txt"')
    write_model(repository, "labelled", labelled, files=[("labels.txt", b"cat\ndog\n")])
    write_model(repository, "repeat_int32", REPEAT)
    return repository


def connect(server, protocol):
    return MODULES[protocol].InferenceServerClient(f"127.0.0.1:{getattr(server, protocol)}")


def infer(client, protocol, model, array, datatype, **kwargs):
    module = MODULES[protocol]
    tensor = module.InferInput("INPUT0", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    outputs = [module.InferRequestedOutput("OUTPUT0", **kwargs)]
    return client.infer(model, [tensor], outputs=outputs)


# Log settings

@pytest.fixture
def logging(repository, tmp_path):
    server = Server(repository, "--log-file", str(tmp_path / "log.txt"))
    server.file = tmp_path / "log.txt"
    with server:
        yield server


def settings(client, protocol):
    if protocol == "http":
        return client.get_log_settings()
    answer = client.get_log_settings(as_json=True)["settings"]
    return {name: next(iter(value.values())) for name, value in answer.items()}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_log_settings_take_effect(logging, protocol):
    with connect(logging, protocol) as client:
        before = settings(client, protocol)
        assert before == {"log_file": str(logging.file), "log_info": True, "log_warning": True, "log_error": True,
                          "log_verbose_level": 0, "log_format": "default"}
        assert not [line for line in logging.file.read_text().splitlines() if line.startswith("V ")]
        client.update_log_settings({"log_verbose_level": 3, "log_format": "ISO8601", "log_info": False})
        after = settings(client, protocol)
        assert after == {**before, "log_verbose_level": 3, "log_format": "ISO8601", "log_info": False}
        logging.raw("GET", "/v2")
        lines = logging.file.read_text().splitlines()
        assert any(re.match(r"V \d{4}-\d\d-\d\dT", line) for line in lines), lines
        client.update_log_settings({"log_verbose_level": 0})
        quiet = len(logging.file.read_text().splitlines())
        for _ in range(20):
            logging.raw("GET", "/v2")
        assert len(logging.file.read_text().splitlines()) == quiet


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("change, says, http, grpc", [
    ({"log_file": "/tmp/other"}, "log file location can not be updated through network protocol", 501, "UNIMPLEMENTED"),
    ({"log_info": 5}, "expect boolean for 'log_info'", 400, "INVALID_ARGUMENT"),
    ({"log_format": "short"}, "got: short", 503, "INVALID_ARGUMENT"),
    ({"log_colour": True}, "log_colour", 400, "INVALID_ARGUMENT"),
])
def test_log_settings_that_cannot_be(logging, protocol, change, says, http, grpc):
    if protocol == "grpc" and "log_info" in change:
        pytest.skip("the client makes a bool of it")
    with connect(logging, protocol) as client:
        before = settings(client, protocol)
        with pytest.raises(Exception, match=says) as refused:
            client.update_log_settings({"log_warning": False, **change})
        assert str({"http": http, "grpc": grpc}[protocol]) in str(refused.value.status())
        assert settings(client, protocol) == before
    assert logging.raw("POST", "/v2/logging", b"[1]")[0] == 400
    assert logging.raw("POST", "/v2/logging", b"")[0] == 200


@pytest.mark.parametrize("call", ["generate", "generate_stream"])
def test_the_header_of_orca(full_server, call):
    """The load of a language model beside its answer, to who asks for it."""
    body = json.dumps({"text_input": "Hello", "max_tokens": 4, "temperature": 0}).encode()

    def header(form):
        asked = {"endpoint-load-metrics-format": form} if form else {}
        status, headers, _ = full_server.raw("POST", f"/v2/models/smollm2/{call}", body, asked)
        assert status == 200
        return {name.lower(): value for name, value in headers.items()}.get("endpoint-load-metrics")

    blocks = scrape(full_server.metrics)["nv_trt_llm_kv_cache_block_metrics"].samples
    blocks = {dict(labels)["kv_cache_block_type"]: value for (_, labels), value in blocks.items() if dict(labels)["model"] == "smollm2"}
    capacity = int(blocks["max"] * blocks["tokens_per"])
    form, told = header("json").split(" ", 1)
    named = json.loads(told)["named_metrics"]
    assert form == "JSON" and set(named) == {"kv_cache_utilization", "max_token_capacity"}
    assert 0 <= named["kv_cache_utilization"] <= 1 and named["max_token_capacity"] == capacity > 0
    text = re.fullmatch(r"TEXT named_metrics\.kv_cache_utilization=(0\.\d{6}), named_metrics\.max_token_capacity=(\d+)", header("text"))
    assert text and int(text[2]) == capacity
    assert header(None) is None and header("xml") is None


def test_models_without_such_a_load_do_not_tell_it(logging):
    body = json.dumps({"INPUT0": [1.5]}).encode()
    status, headers, _ = logging.raw("POST", "/v2/models/flat/generate", body, {"endpoint-load-metrics-format": "json"})
    assert status == 200 and "endpoint-load-metrics" not in {name.lower() for name in headers}


def test_trace_settings_are_not_supported(logging):
    for path in ("/v2/trace/setting", "/v2/models/flat/trace/setting"):
        for method, body in (("GET", None), ("POST", b"{}")):
            status, _, answer = logging.raw(method, path, body)
            assert (status, json.loads(answer)["error"]) == (503, "the server does not support trace")
    with connect(logging, "grpc") as client:
        with pytest.raises(Exception, match="the server does not support trace") as refused:
            client.get_trace_settings()
        assert "UNAVAILABLE" in str(refused.value.status())
    assert "trace" not in json.loads(logging.raw("GET", "/v2")[2])["extensions"]


# Metrics

def metrics(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        return answer.read().decode()


def value(text, name, **labels):
    found = []
    for line in text.splitlines():
        match = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
        if match and dict(re.findall(r'(\w+)="([^"]*)"', match.group(1) or "")).items() >= labels.items():
            found.append(float(match.group(2)))
    assert len(found) == 1, (name, labels, text)
    return found[0]


COUNTERS = ["nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count", "nv_inference_request_failure"]
LATENCIES = [f"nv_inference_{part}_duration_us" for part in ("request", "queue", "compute_input", "compute_infer", "compute_output")]
SUMMARIES = [f"nv_inference_{part}_summary_us" for part in ("request", "queue", "compute_input", "compute_infer", "compute_output")]


def families(text):
    return dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE "))


def test_metrics_by_default(repository):
    with Server(repository) as server, connect(server, "http") as client:
        for _ in range(3):
            infer(client, "http", "identity_fp32", np.ones((2, 4), np.float32), "FP32")
        text = metrics(server)
        kinds = families(text)
        assert {kinds[name] for name in COUNTERS + LATENCIES} == {"counter"}
        assert not set(SUMMARIES) & set(kinds) and not [name for name in kinds if "gpu" in name or "histogram" in name]
        assert kinds["nv_inference_pending_request_count"] == kinds["nv_model_load_duration_secs"] == "gauge"
        assert {"nv_cpu_utilization", "nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"} <= set(kinds)
        model = {"model": "identity_fp32", "version": "1"}
        assert value(text, "nv_inference_request_success", **model) == 3
        assert value(text, "nv_inference_count", **model) == 6
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
            assert value(text, "nv_inference_request_failure", reason=reason, **model) == 0
        assert value(text, "nv_inference_request_duration_us", **model) > 0
        assert "# HELP nv_inference_request_success Number of successful inference requests, all batch sizes" in text
        assert urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics/").status == 200


def test_metrics_config(repository):
    flags = ["--metrics-config", "summary_latencies=true", "--metrics-config=counter_latencies=false",
             "--metrics-config=summary_quantiles=0.5:0.05,0.75:0.01", "--allow-cpu-metrics=false"]
    with Server(repository, *flags) as server, connect(server, "http") as client:
        infer(client, "http", "identity_fp32", np.ones((1, 4), np.float32), "FP32")
        text = metrics(server)
        kinds = families(text)
        assert set(COUNTERS) <= set(kinds) and not set(LATENCIES) & set(kinds)
        assert not [name for name in kinds if name.startswith("nv_cpu")]
        model = {"model": "identity_fp32", "version": "1"}
        for name in SUMMARIES:
            assert kinds[name] == "summary" and value(text, f"{name}_count", **model) == 1
            assert value(text, name, quantile="0.5", **model) == value(text, name, quantile="0.75", **model) >= 0
        assert np.isnan(value(text, SUMMARIES[0], quantile="0.5", model="flat"))


def test_the_first_response_of_decoupled_models(repository, tmp_path):
    import queue
    extra = ('model_metrics { metric_control { metric_identifier { family: "nv_inference_first_response_histogram_ms" }\n'
             "histogram_options { buckets: [ 1, 60000 ] } } }\n")
    write_model(tmp_path, "repeat_int32", REPEAT + extra)
    write_model(tmp_path, "usual", REPEAT.replace('"repeat_int32"', '"usual"'))
    with Server(tmp_path, "--metrics-config=histogram_latencies=true") as server, connect(server, "grpc") as client:
        answers = queue.Queue()
        inputs = []
        for name, array, datatype in [("IN", np.array([1, 2, 3], np.int32), "INT32"),
                                      ("DELAY", np.array([5, 1, 1], np.uint32), "UINT32"),
                                      ("WAIT", np.array([0], np.uint32), "UINT32")]:
            tensor = grpcclient.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        client.start_stream(lambda result, error: answers.put(error))
        client.async_stream_infer("repeat_int32", inputs)
        assert [answers.get(timeout=30) for _ in range(3)] == [None] * 3
        client.stop_stream()
        text = metrics(server)
        name = "nv_inference_first_response_histogram_ms"
        assert families(text)[name] == "histogram"
        assert value(text, f"{name}_count", model="repeat_int32") == 1
        assert value(text, f"{name}_bucket", model="repeat_int32", le="1") == 0
        assert value(text, f"{name}_bucket", model="repeat_int32", le="60000") == 1
        assert value(text, f"{name}_bucket", model="repeat_int32", le="+Inf") == 1
        assert value(text, f"{name}_sum", model="repeat_int32") > 4
        assert value(text, f"{name}_bucket", model="usual", le="2000") == 0


def test_metrics_can_be_off_or_elsewhere(repository):
    with Server(repository, "--allow-metrics=false") as server:
        with pytest.raises(OSError):
            metrics(server)
    with Server(repository, "--metrics-address=127.0.0.2") as server:
        with urllib.request.urlopen(f"http://127.0.0.2:{server.metrics}/metrics") as answer:
            assert answer.status == 200


# Classification

@pytest.fixture(scope="module")
def classifying(repository):
    with Server(repository) as server:
        yield server
        server.alive()


def classes(result):
    return [[one.decode() if isinstance(one, bytes) else one for one in row] for row in np.atleast_2d(result.as_numpy("OUTPUT0"))]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_best_classes(classifying, protocol):
    with connect(classifying, protocol) as client:
        array = np.array([[0.25, -1, 3.5, 2], [9, 8, 7, 1e6]], np.float32)
        result = infer(client, protocol, "identity_fp32", array, "FP32", class_count=2)
        assert classes(result) == [["3.500000:2", "2.000000:3"], ["1000000.000000:3", "9.000000:0"]]
        result = infer(client, protocol, "flat", array[0], "FP32", class_count=10)
        assert classes(result) == [["3.500000:2", "2.000000:3", "0.250000:0", "-1.000000:1"]]
        result = infer(client, protocol, "identity_int16", array.astype(np.int16)[:1], "INT16", class_count=1)
        assert classes(result) == [["3:2"]]
        result = infer(client, protocol, "identity_fp64", array[:1].astype(np.float64), "FP64", class_count=1)
        assert classes(result) == [["3.500000:2"]]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_classes_have_labels(classifying, protocol):
    with connect(classifying, protocol) as client:
        result = infer(client, protocol, "labelled", np.array([[1, 3, 2]], np.float32), "FP32", class_count=3)
        assert classes(result) == [["3.000000:1:dog", "2.000000:2", "1.000000:0:cat"]]


def test_classes_as_json(classifying):
    body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 3], "data": [1, 5, 2]}],
            "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}]}
    status, _, answer = classifying.raw("POST", "/v2/models/identity_fp32/infer", json.dumps(body).encode())
    expected = {"name": "OUTPUT0", "datatype": "BYTES", "shape": [1, 2], "data": ["5.000000:1", "2.000000:2"]}
    assert status == 200 and json.loads(answer)["outputs"] == [expected]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("datatype, array", [("BYTES", np.array([["a"]], np.object_)), ("FP16", np.ones((1, 1), np.float16)),
                                             ("BOOL", np.ones((1, 1), bool))])
def test_types_without_classes(classifying, protocol, datatype, array):
    model = f"identity_{'string' if datatype == 'BYTES' else datatype.lower()}"
    with connect(classifying, protocol) as client:
        text = f"class result not available for output due to unsupported type '{datatype}'"
        with pytest.raises(Exception, match=text):
            infer(client, protocol, model, array, datatype, class_count=1)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_tensor_that_is_too_large_to_sort(classifying, protocol):
    with connect(classifying, protocol) as client:
        with pytest.raises(Exception, match="classification output tensor too large"):
            infer(client, protocol, "identity_fp32", np.zeros((1, 1_000_001), np.float32), "FP32", class_count=1)
