"""`trireme conformance` and `TRIREME_ABI_CHECK=1` with the real libraries of this workspace, and one in C."""
import json
import os
import re
import subprocess
import sys

import pytest

from test_llm_metrics import SHAPE
from test_onnxruntime import ADD_SUB, LIBRARY
from test_tensorrtllm import GGUF
from trireme_server import BACKENDS, BINARY, ROOT, Server, io, write_model

COMPAT = ROOT / "tests" / "abi-compat"
OWN = ROOT / "model_repository"


def tensors(*named):
    return "".join(io(kind, name, dtype, dims, extra) for kind, name, dtype, dims, extra in named)


def tensor(shape, data):
    return {"shape": shape, "data": data}


def request(name, inputs, **more):
    return {"name": name, "inputs": {name: tensor(*value) for name, value in inputs.items()}, **more}


PYTHON = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", x * 2)]))
        return answers
"""

# The backend; its configuration, or the example model that has it; conformance.json; files; checks that are excluded.
MODELS = {
    "simple": ("add_sub", OWN / "simple", {}, {}, {"bytes", "ragged", "error_mapping"}),
    # Texts that are no numbers are refused, so there is an error to look at.
    "simple_string": ("add_sub", OWN / "simple_string", {
        "requests": [
            request("numbers", {name: ([1, 16], [str(n) for n in range(16)]) for name in ("INPUT0", "INPUT1")}),
            request("words", {name: ([1, 16], ["one"] * 16) for name in ("INPUT0", "INPUT1")}, error="INVALID_ARG"),
        ]}, {}, {"ragged"}),
    "simple_identity": ("identity", OWN / "simple_identity", {}, {}, {"ragged", "error_mapping"}),
    "repeat_int32": ("repeat", OWN / "repeat_int32", {
        "requests": [
            request("three", {"IN": ([3], [4, 2, 0]), "DELAY": ([3], [1, 2, 3]), "WAIT": ([1], [0])}, answers=3,
                    outputs={"OUT": tensor([1], [4]), "IDX": tensor([1], [0])}),
            request("slow", {"IN": ([2], [1, 2]), "DELAY": ([2], [300, 0]), "WAIT": ([1], [0])}, answers=2),
            request("none", {"IN": ([0], []), "DELAY": ([0], []), "WAIT": ([1], [0])}, answers=0),
            request("two delays for one", {"IN": ([1], [1]), "DELAY": ([2], [0, 0]), "WAIT": ([1], [0])}, error="INVALID_ARG"),
        ], "cancellation_ms": 200}, {}, {"bytes", "batching", "ragged"}),
    "sums": ("sequence", 'name: "sums"\nbackend: "sequence"\nmax_batch_size: 4\n' + tensors(
        ("input", "INPUT", "INT32", "1", ""), ("output", "OUTPUT", "INT32", "1", "")) + """
        sequence_batching { control_input [
          { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
          { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } ] },
          { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] },
          { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
        ] }\n""", {}, {}, {"bytes", "ragged", "error_mapping"}),
    "joined": ("ragged", 'name: "joined"\nbackend: "ragged"\nmax_batch_size: 8\n' + tensors(
        ("input", "A", "INT32", "-1", "allow_ragged_batch: true"), ("output", "REQUESTS", "INT32", "1", "")), {
        "exclusions": {"batching": "REQUESTS is how many requests the batch has"},
        # Of one row each, as the tensor REQUESTS is.
        "requests": [request(f"{n} numbers", {"A": ([1, n], list(range(n)))}) for n in (3, 1, 0, 5)],
    }, {}, {"bytes", "batching", "error_mapping"}),
    "doubler": ("python", 'name: "doubler"\nbackend: "python"\nmax_batch_size: 8\n' + tensors(
        ("input", "INPUT0", "FP32", "-1", ""), ("output", "OUTPUT0", "FP32", "-1", "")), {
        "settings": {"interpreter": sys.executable}}, {"1/model.py": PYTHON}, {"bytes", "ragged", "error_mapping"}),
    "text_score": ("glue", OWN / "text_score", {}, {}, {"bytes", "ragged", "error_mapping"}),
    "text_clean": ("glue", OWN / "text_clean", {}, {}, {"ragged", "error_mapping"}),
    # Its configuration is what the backend completes.
    "sum_and_difference": ("onnxruntime", 'name: "sum_and_difference"\nplatform: "onnxruntime_onnx"\n', {
        "settings": {"library": str(LIBRARY)}}, {"1/model.onnx": ADD_SUB}, {"bytes", "ragged", "error_mapping"}),
    "preprocessing": ("tokenizer", ROOT / "tests" / "tensorrtllm" / "preprocessing", {
        "requests": [
            request("a fox", {"QUERY": ([1, 1], ["The quick brown fox"]), "REQUEST_OUTPUT_LEN": ([1, 1], [4])}),
            request("no query", {"REQUEST_OUTPUT_LEN": ([1, 1], [4])}, error="INVALID_ARG"),
        ]}, {}, {"ragged"}),
    "tiny": ("cpu", 'name: "tiny"\nbackend: "cpu"\nmax_batch_size: 4\n' + "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in {
            "load_format": "dummy", "max_tokens_in_paged_kv_cache": 2048}.items()), {
        "requests": [
            request("four tokens", {"text_input": ([1, 1], ["once"]), "max_tokens": ([1, 1], [4])}),
            request("no room", {"text_input": ([1, 1], ["once"]), "max_tokens": ([1, 1], [-1])}, error="INVALID_ARG"),
        ]}, {"1/config.json": json.dumps(SHAPE)}, {"ragged"}),
}


def place(tmp_path, name):
    backend, config, declared, files, excluded = MODELS[name]
    text = config if isinstance(config, str) else (config / "config.pbtxt").read_text()
    text = text.replace("../../tensorrt_llm/1", str(GGUF))
    files = {"conformance.json": json.dumps(declared), **files}
    files = [(path, content.encode() if isinstance(content, str) else content) for path, content in files.items()]
    directory = write_model(tmp_path, name, text, files=files)
    return BACKENDS / backend / f"libtrireme_{backend}.so", directory, excluded


def conformance(library, *arguments):
    """The exit code and what was said of each check: the word and the reason."""
    # The threads that numpy would start in each of the more than a hundred processes of a model in Python.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run([BINARY, "conformance", library, *arguments], capture_output=True, text=True, timeout=280, env=env)
    rows = re.findall(r"^([a-z_]+) +(pass|FAIL|excluded) *(.*)$", run.stdout, re.M)
    return run, {check: (word, reason) for check, word, reason in rows}


def of(rows, word):
    return {check: reason for check, (other, reason) in rows.items() if other == word}


@pytest.mark.parametrize("name", MODELS)
def test_own_backends_conform(tmp_path, name):
    library, directory, excluded = place(tmp_path, name)
    run, rows = conformance(library, "--model", directory)
    assert of(rows, "FAIL") == {} and run.returncode == 0, run.stdout + run.stderr
    assert set(of(rows, "excluded")) == excluded, run.stdout
    assert len(rows) == 17, run.stdout


def c_library(tmp_path, source, name):
    library = tmp_path / f"libtrireme_{name}.so"
    subprocess.run([
        "cc", "-std=c11", "-Wall", "-Werror", "-O1", "-fPIC", "-shared", "-I", ROOT / "backend-api/abi/include",
        "-o", library, COMPAT / "c_backend" / source], check=True)
    return library


def test_the_example_in_c_conforms(tmp_path):
    library = c_library(tmp_path, "identity.c", "c_identity")
    config = 'name: "c"\nbackend: "c_identity"\nmax_batch_size: 8\n' + tensors(
        ("input", "A", "STRING", "-1", ""), ("output", "OUTPUT0", "STRING", "-1", ""))
    run, rows = conformance(library, "--model", write_model(tmp_path, "c", config))
    assert run.returncode == 0 and set(of(rows, "excluded")) == {"ragged", "error_mapping"}, run.stdout + run.stderr
    assert "no layout record, sizes compared" in rows["probe_and_layout"][1]


def test_a_process_that_dies_is_one_row(tmp_path):
    library = BACKENDS / "hostile" / "libtrireme_hostile.so"
    config = 'name: "bad"\nbackend: "hostile"\nmax_batch_size: 8\n' + tensors(
        ("input", "INPUT0", "FP32", "-1", ""), ("output", "OUTPUT0", "FP32", "-1", "")
    ) + 'parameters { key: "fault" value { string_value: "abort" } }\n'
    run, rows = conformance(library, "--model", write_model(tmp_path, "bad", config))
    assert run.returncode == 1, run.stdout
    assert rows["probe_and_layout"][0] == "pass" and rows["bytes"][0] == "excluded", run.stdout
    word, reason = rows["shapes"]
    assert word == "FAIL" and reason.startswith("the process died (signal: 6 (SIGABRT)"), run.stdout
    assert "shapes fails; it holds if answers have the configured shapes" in run.stderr


def test_without_a_model_the_library_alone_is_looked_at():
    run, rows = conformance(BACKENDS / "identity" / "libtrireme_identity.so")
    assert run.returncode == 0, run.stdout
    assert set(of(rows, "pass")) == {"probe_and_layout"}
    assert set(of(rows, "excluded").values()) == {"no model was given"}


def test_what_cannot_be_tried_is_said_once(tmp_path):
    broken = tmp_path / "libtrireme_broken.so"
    broken.write_text("no library")
    run, rows = conformance(broken)
    assert run.returncode == 1 and "is not a library that can be loaded" in rows["probe_and_layout"][1], run.stdout
    assert set(of(rows, "excluded").values()) == {"the library cannot be used"}
    library, directory, _ = place(tmp_path, "simple")
    (directory / "conformance.json").write_text('{ "exclusions": {\n "leeks": "x" } }')
    run, rows = conformance(library, "--model", directory)
    assert run.returncode == 1 and "conformance.json: exclusions: there is no check 'leeks'" in rows["probe_and_layout"][1]
    (directory / "conformance.json").write_text("{}")
    (directory / "config.pbtxt").write_text('backend: "identity"\n')
    run, rows = conformance(library, "--model", directory)
    assert run.returncode == 1 and "backend 'identity', the library is 'add_sub'" in rows["probe_and_layout"][1], run.stdout
    for arguments in (["absent.so"], [library, "--model", tmp_path / "absent"], [library, "--limit-seconds", "0"]):
        assert conformance(*arguments)[0].returncode == 2


def test_a_server_names_the_rule_that_a_backend_breaks(tmp_path):
    library = c_library(tmp_path, "offender.c", "offender")
    backends = tmp_path / "backends"
    (backends / "offender").mkdir(parents=True)
    os.rename(library, backends / "offender" / library.name)
    repository = tmp_path / "models"
    config = 'name: "o"\nbackend: "offender"\n' + tensors(("input", "X", "FP32", "1", ""), ("output", "Y", "FP32", "1", ""))
    write_model(repository, "o", config)

    def ask(server, rule):
        body = {"id": rule, "inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1]}]}
        return server.raw("POST", "/v2/models/o/infer", json.dumps(body).encode())[0]

    with Server(repository, backends=backends, env={"TRIREME_ABI_CHECK": "1"}) as server:
        assert "each call of a backend is checked (TRIREME_ABI_CHECK=1)" in server.output()
        for rule in ("released-twice", "use-after-release", "write-past-buffer", "response-after-final", "none"):
            assert ask(server, rule) == 200, server.output()
            named = f"backend 'offender' broke the rule {rule}" in server.output()
            assert named == (rule != "none"), server.output()
        server.alive()
    with Server(repository, backends=backends) as server:
        assert ask(server, "none") == 200
        assert "checked" not in server.output()
    refused = subprocess.run([BINARY, "serve", "--model-repository", repository], capture_output=True, text=True, timeout=30,
                             env={**os.environ, "TRIREME_ABI_CHECK": "yes"})
    assert refused.returncode == 1 and 'TRIREME_ABI_CHECK is "yes"' in refused.stderr, refused.stderr
