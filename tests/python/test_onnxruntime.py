"""ONNX models, beside ONNX Runtime called directly."""
import json
import pathlib
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.http as httpclient
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from test_ensemble import stats
from test_lifecycle import eventually
from test_python import infer
from trireme_server import Server, io, write_model

(LIBRARY,) = (pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
RUNTIME = f"--backend-config=onnxruntime,library={LIBRARY}"
TYPES = {"BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
         "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
         "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
         "STRING": TensorProto.STRING, "BF16": TensorProto.BFLOAT16}


def model(nodes, inputs, outputs):
    """The bytes of a model; tensors are (name, type, dimensions)."""
    value = lambda tensor: helper.make_tensor_value_info(tensor[0], TYPES[tensor[1]], tensor[2])  # noqa: E731
    graph = helper.make_graph([helper.make_node(kind, given, made, **more) for kind, given, made, more in nodes], "graph",
                              [value(tensor) for tensor in inputs], [value(tensor) for tensor in outputs])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def put(repository, name, made, config="", file="model.onnx"):
    text = f'name: "{name}"\nplatform: "onnxruntime_onnx"\n' if "backend" not in config else f'name: "{name}"\n'
    return write_model(repository, name, text + config, files=[(f"1/{file}", made)])


def identity(dtype, dims):
    return model([("Identity", ["IN"], ["OUT"], {})], [("IN", dtype, dims)], [("OUT", dtype, dims)])


ADD_SUB = model([("Add", ["A", "B"], ["SUM"], {}), ("Sub", ["A", "B"], ["DIFF"], {})],
                [("A", "FP32", ["n", 4]), ("B", "FP32", ["n", 4])], [("SUM", "FP32", ["n", 4]), ("DIFF", "FP32", ["n", 4])])
LOOKUP = model([("Constant", [], ["T"], {"value_floats": [0.0, 1.0, 2.0]}), ("Gather", ["T", "IN"], ["OUT"], {})],
               [("IN", "INT64", ["n", 1])], [("OUT", "FP32", ["n", 1])])
RESHAPE = model([("Reshape", ["IN", "SHAPE"], ["OUT"], {})], [("IN", "FP32", ["n"]), ("SHAPE", "INT64", ["k"])], [("OUT", "FP32", ["a", "b"])])
EXPAND = model([("Expand", ["IN", "SHAPE"], ["OUT"], {})], [("IN", "FP32", [1]), ("SHAPE", "INT64", ["k"])], [("OUT", "FP32", ["a", "b"])])
TOTAL = model([("ReduceSum", ["IN"], ["OUT"], {"keepdims": 0})], [("IN", "FP32", [2, 3])], [("OUT", "FP32", [])])


def with_default():
    """OUT = IN * SCALE, and SCALE is 3 unless a request says otherwise."""
    made = onnx.load_from_string(model([("Mul", ["IN", "SCALE"], ["OUT"], {})], [("IN", "FP32", ["n"]), ("SCALE", "FP32", [1])], [("OUT", "FP32", ["n"])]))
    made.graph.initializer.append(helper.make_tensor("SCALE", TensorProto.FLOAT, [1], [3.0]))
    return made.SerializeToString()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("onnx")
    for dtype in TYPES:
        put(repository, f"identity_{dtype.lower()}", identity(dtype, ["n", "m"]))
    put(repository, "add_sub", ADD_SUB)
    put(repository, "slow_batches", ADD_SUB, "max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 20000 }\n")
    queued = "max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: 6 }\n"
    put(repository, "texts", identity("STRING", ["n", "m"]), queued + io("input", "IN", "STRING", "-1") + io("output", "OUT", "STRING", "-1"))
    put(repository, "lookup", LOOKUP, queued)
    shapes = io("input", "SHAPE", "INT64", "-1") + io("output", "OUT", "FP32", "-1, -1")
    put(repository, "reshape", RESHAPE, io("input", "IN", "FP32", "-1") + shapes)
    put(repository, "expand", EXPAND, io("input", "IN", "FP32", "1") + shapes)
    optional = lambda name, dims: io("input", name, "FP32", dims, "optional: true")  # noqa: E731
    put(repository, "scaled", with_default(), io("input", "IN", "FP32", "-1") + optional("SCALE", "1") + io("output", "OUT", "FP32", "-1"))
    put(repository, "needed", ADD_SUB, io("input", "A", "FP32", "-1, 4") + optional("B", "-1, 4") + io("output", "SUM", "FP32", "-1, 4"))
    put(repository, "odd", ADD_SUB, parameter("intra_op_thread_counts", 1) + parameter("gpu_mem_limit", 1))
    put(repository, "total", TOTAL)
    put(repository, "by_backend", ADD_SUB, 'backend: "onnxruntime"\ndefault_model_filename: "other.onnx"\n', "other.onnx")
    put(repository, "tuned", ADD_SUB, "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in
        (("intra_op_thread_count", 1), ("inter_op_thread_count", 2), ("execution_mode", 1), ("enable_mem_pattern", 0)))
        + "optimization { graph { level: -1 } }\n")
    # No config.pbtxt at all: the file says which backend it is.
    (repository / "bare" / "1").mkdir(parents=True)
    (repository / "bare" / "1" / "model.onnx").write_bytes(ADD_SUB)
    with Server(repository, RUNTIME) as server:
        yield server
        server.alive()


def config(server, name):
    return httpclient.InferenceServerClient(f"127.0.0.1:{server.http}").get_model_config(name)


@pytest.mark.parametrize("dtype", [dtype for dtype in TYPES if dtype not in ("STRING", "BF16")])
@pytest.mark.parametrize("rows", [1, 4])
def test_every_type(server, dtype, rows):
    value = (np.arange(rows * 5).reshape(rows, 5) % 2).astype(dtype.lower().replace("fp", "float"))
    back = infer(server, f"identity_{dtype.lower()}", IN=value).as_numpy("OUT")
    assert back.dtype == value.dtype and np.array_equal(back, value)


def test_strings_and_bfloat(server):
    value = np.array([[b"", "zwölf".encode(), b"x" * 5000]], dtype=object)
    assert np.array_equal(infer(server, "identity_string", IN=value).as_numpy("OUT"), value)
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        infer(server, "identity_string", IN=np.array([[b"\xff"]], dtype=object))
    raw = httpclient.InferInput("IN", [1, 2], "BF16")
    raw._raw_data, raw._parameters["binary_data_size"] = b"\x80\x3f\x00\x40", 4
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
    answer = client.infer("identity_bf16", [raw], outputs=[httpclient.InferRequestedOutput("OUT")])
    assert np.array_equal(answer.as_numpy("OUT"), [[1, 2]])


@pytest.mark.parametrize("name", ["add_sub", "by_backend", "bare", "tuned"])
def test_add_sub(server, name):
    a, b = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
    answer = infer(server, name, A=a, B=b)
    direct = onnxruntime.InferenceSession(ADD_SUB).run(["SUM", "DIFF"], {"A": a, "B": b})
    assert np.array_equal(answer.as_numpy("SUM"), direct[0]) and np.array_equal(answer.as_numpy("DIFF"), direct[1])


def test_the_configuration_is_completed(server):
    shown = config(server, "bare")
    assert (shown["backend"], shown["max_batch_size"]) == ("onnxruntime", 4) and "dynamic_batching" in shown
    assert [(t["name"], t["data_type"], t["dims"]) for t in shown["input"]] == [("A", "TYPE_FP32", [4]), ("B", "TYPE_FP32", [4])]
    shown = config(server, "total")
    assert shown["max_batch_size"] == 0 and shown["input"][0]["dims"] == [2, 3] and shown["output"][0]["dims"] == [1]


def test_a_number_without_dimensions(server):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(infer(server, "total", IN=value).as_numpy("OUT"), [15])


def test_requests_are_batched(server):
    def one(n):
        value = np.full((1, 4), n, np.float32)
        answer = infer(server, "slow_batches", A=value, B=value)
        assert np.array_equal(answer.as_numpy("SUM"), value * 2) and np.array_equal(answer.as_numpy("DIFF"), value * 0)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    entry = stats(server, "slow_batches")
    assert entry["inference_count"] == 16 and entry["execution_count"] < 16


@pytest.mark.parametrize("name, good, bad, says", [
    ("texts", b"good", b"\xff", "not UTF-8"), ("texts", b"good", b"a\0b", "'IN' holds an element with a NUL"), ("lookup", 1, 7, "out of data bounds")])
def test_a_bad_request_fails_for_itself_alone(server, name, good, bad, says):
    def one(n):
        value = np.array([[bad if n == 2 else good]], dtype=np.int64 if name == "lookup" else object)
        try:
            answers[n] = infer(server, name, IN=value).as_numpy("OUT").item()
        except InferenceServerException as error:
            answers[n] = str(error)

    answers, before = {}, stats(server, name)["execution_count"]
    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert "[400]" in answers[2] and says in answers.pop(2)
    assert set(answers.values()) == {good}
    assert stats(server, name)["execution_count"] - before < 6


def test_no_rows_are_answered_with_no_rows(server):
    value = np.zeros((0, 4), np.float32)
    assert infer(server, "add_sub", A=value, B=value).as_numpy("SUM").shape == (0, 4)


def test_the_version_of_the_library_is_known(server):
    version = ".".join(LIBRARY.name.removeprefix("libonnxruntime.so.").split(".")[:2])
    assert f"ONNX Runtime {version} from '{LIBRARY}'" in server.output()


def test_parameters_without_effect_are_named(server):
    for says in ("'intra_op_thread_counts' is unknown and has no effect", "'gpu_mem_limit' has no effect"):
        assert f"model 'odd': parameter {says}" in server.output()


def test_what_does_not_fit_is_the_clients_fault(server):
    with pytest.raises(InferenceServerException, match=r"\[400\].*shape"):
        infer(server, "add_sub", A=np.zeros((1, 4), np.float32), B=np.zeros((1, 5), np.float32))


def test_numbers_that_an_operator_cannot_use_are_the_clients_fault(server):
    value = np.arange(6, dtype=np.float32)
    assert infer(server, "reshape", IN=value, SHAPE=np.array([2, 3])).as_numpy("OUT").shape == (2, 3)
    with pytest.raises(InferenceServerException, match=r"\[400\].*Reshape.*the inputs were 'IN' FP32 \[6\], 'SHAPE' INT64 \[2\]"):
        infer(server, "reshape", IN=value, SHAPE=np.array([4, 2]))
    # It is the request's error, not the server's.
    infer(server, "reshape", IN=value, SHAPE=np.array([6, 1]))
    assert "Reshape" not in server.output()


def test_more_memory_than_there_is_ends_a_request_alone(server):
    # The second is of more bytes than there are numbers for.
    for shape, status in (([1 << 40, 1 << 8], "500"), ([1 << 31, 1 << 31], "400|500")):
        with pytest.raises(InferenceServerException, match=rf"\[({status})\].*Expand"):
            infer(server, "expand", IN=np.ones(1, np.float32), SHAPE=np.array(shape))
    assert infer(server, "expand", IN=np.ones(1, np.float32), SHAPE=np.array([2, 3])).as_numpy("OUT").tolist() == [[1] * 3] * 2
    server.alive()


def test_an_input_with_a_default_may_be_left_out(server):
    value = np.arange(3, dtype=np.float32)
    assert infer(server, "scaled", IN=value).as_numpy("OUT").tolist() == [0, 3, 6]
    assert infer(server, "scaled", IN=value, SCALE=np.array([5], np.float32)).as_numpy("OUT").tolist() == [0, 5, 10]


def test_an_optional_input_without_a_default_is_named(server):
    assert "model 'needed': input 'B' is optional in the configuration, but the model has no default for it" in server.output()
    with pytest.raises(InferenceServerException, match=r"\[400\] input 'B' is missing, and the model has no value for it"):
        infer(server, "needed", A=np.ones((1, 4), np.float32))


def advised(pid):
    """The bytes of each mapping for which a process has asked for large pages."""
    size, found = 0, [0]
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *words = line.split()
        size = int(words[0]) << 10 if name == "Size:" else size
        if name == "VmFlags:" and "hg" in words:
            found.append(size)
    return found


def test_memory_goes_back_with_a_model(tmp_path):
    """The memory of a model's weights and runs is its own, and large pages where the system has them."""
    size = 64 << 20
    weights = helper.make_node("ConstantOfShape", ["SHAPE"], ["OUT"])
    graph = helper.make_graph([weights], "graph", [helper.make_tensor_value_info("SHAPE", TensorProto.INT64, [1])],
                              [helper.make_tensor_value_info("OUT", TensorProto.FLOAT, ["n"])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    put(tmp_path, "ones", made.SerializeToString())
    with Server(tmp_path, RUNTIME, "--model-control-mode=explicit") as server:
        kib = lambda: int(next(  # noqa: E731
            line.split()[1] for line in pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")))
        for _ in range(3):
            assert server.raw("POST", "/v2/repository/models/ones/load")[0] == 200
            before = kib()
            assert infer(server, "ones", SHAPE=np.array([size // 4])).as_numpy("OUT").size == size // 4
            held = kib()
            assert "in small pages" not in server.output()
            if pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
                assert max(advised(server.process.pid)) >= size, "no large pages were asked for"
            assert server.raw("POST", "/v2/repository/models/ones/unload")[0] == 200
            eventually(lambda: kib() < held - (size >> 10) * 9 // 10)
            assert held - before > size >> 11, "nothing was held"


def test_what_cannot_be_served_says_why(tmp_path):
    tensors = io("input", "A", "FP32", "4") + io("input", "B", "FP32", "4") + io("output", "SUM", "FP32", "4")
    sequence = helper.make_model(helper.make_graph(
        [helper.make_node("SequenceConstruct", ["IN"], ["OUT"])], "graph", [helper.make_tensor_value_info("IN", TensorProto.FLOAT, [1])],
        [helper.make_tensor_sequence_value_info("OUT", TensorProto.FLOAT, None)]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cases = {
        "no_model": (b"this is no model", "", "ONNX Runtime cannot load"),
        "sequence": (sequence.SerializeToString(), "", "output 'OUT' is no tensor"),
        "no_such_output": (ADD_SUB, "max_batch_size: 4\n" + tensors.replace("SUM", "TOTAL"), "output 'TOTAL' is not one of the model, which has 'SUM', 'DIFF'"),
        "other_type": (ADD_SUB, "max_batch_size: 4\n" + tensors.replace("FP32", "FP64"), "input 'A' is TYPE_FP64 in the configuration, but TYPE_FP32 in the model"),
        "no_batches": (TOTAL, "max_batch_size: 4\n" + io("input", "IN", "FP32", "3") + io("output", "OUT", "FP32", "1"), "first dimension of the model's input 'IN' is 2"),
        "level": (ADD_SUB, "optimization { graph { level: 7 } }\n", "optimization.graph.level is 7"),
        "threads": (ADD_SUB, 'parameters { key: "intra_op_thread_count" value { string_value: "many" } }\n', "'intra_op_thread_count' has the value 'many'"),
        "other_dims": (ADD_SUB, "max_batch_size: 4\n" + tensors.replace("[ 4 ]", "[ 3 ]"), "input 'A' has the dimensions [-1, 3], the batch first, in the configuration, but [-1, 4] in the model"),
        "other_rank": (ADD_SUB, tensors.replace("[ 4 ]", "[ 1, 1, 4 ]"), "input 'A' has the dimensions [1, 1, 4] in the configuration, but [-1, 4]"),
        "other_output": (ADD_SUB, 'max_batch_size: 4\n' + tensors.replace('SUM" data_type: TYPE_FP32 dims: [ 4 ]', 'SUM" data_type: TYPE_FP32 dims: [ 5 ]'), "output 'SUM' has the dimensions [-1, 5]"),
        "other_output_rank": (ADD_SUB, 'max_batch_size: 4\n' + tensors.replace('SUM" data_type: TYPE_FP32 dims: [ 4 ]', 'SUM" data_type: TYPE_FP32 dims: [ 4, 1 ]'), "output 'SUM' has the dimensions [-1, 4, 1], the batch first, in the configuration, but [-1, 4]"),
        "outside": (ADD_SUB, 'default_model_filename: "../../other.onnx"\n', "default_model_filename '../../other.onnx' leaves the version's directory"),
        "many_threads": (ADD_SUB, parameter("intra_op_thread_count", 3_000_000_000), "'intra_op_thread_count' is 3000000000, at most 1024"),
        "shrink": (ADD_SUB, parameter("memory.enable_memory_arena_shrinkage", "gpu:0"), "there is only the memory 'cpu:0'"),
        "accelerated": (ADD_SUB, 'optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" } ] } }\n', "only the CPU provider"),
    }
    for name, (made, more, _) in cases.items():
        put(tmp_path, name, made, more)
    (tmp_path / "other.onnx").write_bytes(ADD_SUB)
    write_model(tmp_path, "no_file", 'platform: "onnxruntime_onnx"\n')
    with Server(tmp_path, RUNTIME, "--exit-on-error=false") as server:
        index = {line["name"]: line for line in json.loads(server.raw("POST", "/v2/repository/index")[2])}
        for name, says in {**{name: case[2] for name, case in cases.items()}, "no_file": "has no file"}.items():
            assert index[name]["state"] == "UNAVAILABLE" and says in index[name]["reason"], index[name]


def test_a_missing_library_is_named(tmp_path):
    put(tmp_path, "add_sub", ADD_SUB)
    with Server(tmp_path, "--exit-on-error=false", "--backend-config=onnxruntime,library=/nowhere.so") as server:
        (line,) = json.loads(server.raw("POST", "/v2/repository/index")[2])
        assert "ONNX Runtime cannot be loaded from '/nowhere.so': /nowhere.so: cannot open shared object file" in line["reason"], line


def test_half_a_library_is_refused(tmp_path):
    put(tmp_path / "models", "add_sub", ADD_SUB)
    half = tmp_path / "half.so"
    half.write_bytes(LIBRARY.read_bytes()[:1 << 20])
    with Server(tmp_path / "models", "--exit-on-error=false", f"--backend-config=onnxruntime,library={half}") as server:
        (line,) = json.loads(server.raw("POST", "/v2/repository/index")[2])
        assert "the file is cut off: it has 1048576 bytes" in line["reason"], line
        assert server.process.poll() is None
