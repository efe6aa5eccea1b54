"""What models in Python that load and unload others are told, by tritonserver and by us: one script of calls, in which every
call is answered by a value or by an error. `model-control.json` is tritonserver's answers; to record them anew:

    PATH=<an environment with numpy 1.26>/bin:$PATH python model_control.py <folder of the peer> model-control.json

The folder is that of `tritonserver/install.sh`, with the stub for this Python beside its backend.
"""
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))
RECORD = HERE / "model-control.json"
ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy())]) for request in requests]
"""
TENSORS = {"input": [{"name": "IN", "data_type": "TYPE_INT32", "dims": [1]}], "output": [{"name": "OUT", "data_type": "TYPE_INT32", "dims": [1]}]}
CONFIG = json.dumps({"backend": "python", "max_batch_size": 0, **TENSORS})
ONE = json.dumps({"backend": "python", "max_batch_size": 0, "version_policy": {"specific": {"versions": [1]}}, **TENSORS})
DIFFERS = "load('child', CONFIG, {'1/model.py': ECHO})"
# The directory has versions 1 and 2. A version that is no number, as 'two', now and then ends tritonserver, so there is none here.
CALLS = [
    "ready('child')", "ready('child', '2')", "ready('nobody')", "ready('nobody', '1')",
    "load('child')", "ready('child')", "ready('child', '1')", "ready('child', '2')", "ready('child', '3')",
    "ready(model_name='child', model_version='')",
    "load('child')", "load('nobody')", "load('')", "load('child', config='{')", "load('child', config='[]')", "ready('child', '2')",
    "load('child', config=ONE)", "ready('child', '1')", "ready('child', '2')",
    "load('child', files={'file:1/model.py': ECHO})", DIFFERS, "load('child', CONFIG, ['file:1/model.py'])",
    "load('child', CONFIG, {'file:1/model.py': 7})",
    "load('made', CONFIG, {'file:1/model.py': ECHO})", "ready('made')", "ready('made', '1')", "ready('made', '2')",
    "load('made', config=CONFIG, files={'file:3/model.py': ECHO})", "ready('made', '1')", "ready('made', '3')",
    "load(None)", "load('child', None)", "load(7)", "unload(None)", "ready('child', 1)", "ready(None)",
    "unload('made')", "ready('made')", "unload('child', unload_dependents=True)", "ready('child')", "unload('child')",
    "load('child', '', None)", "ready('child', '2')", "unload(model_name='child', unload_dependents=False)", "ready('child')",
]
SCRIPT = f"""
import json
import numpy as np
import triton_python_backend_utils as pb_utils

ECHO, CONFIG, ONE = {ECHO.encode()!r}, {CONFIG!r}, {ONE!r}

def outcome(call):
    # tritonserver adds these after it has read this file.
    known = {{"load": pb_utils.load_model, "unload": pb_utils.unload_model, "ready": pb_utils.is_model_ready, **globals()}}
    print(call, flush=True)
    try:
        return eval(call, known)
    except pb_utils.TritonModelException:
        return "TritonModelException"
    except Exception as error:
        return type(error).__name__

class TritonPythonModel:
    def initialize(self, args):
        self.first = [outcome(call) for call in {CALLS!r}]

    def execute(self, requests):
        said = json.dumps([self.first, [outcome(call) for call in {CALLS!r}]])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SAID", np.array([said.encode()], dtype=np.object_))]) for _ in requests]
"""


def write(repository):
    tensor = "{kind} [ {{ name: \"{name}\" data_type: TYPE_{dtype} dims: [ 1 ] }} ]\n"
    for name, output, script, versions in (("child", ("OUT", "INT32"), ECHO, "12"), ("script", ("SAID", "STRING"), SCRIPT, "1")):
        for version in versions:
            folder = repository / name / version
            folder.mkdir(parents=True)
            (folder / "model.py").write_text(script)
        text = 'backend: "python"\nmax_batch_size: 0\n' + tensor.format(kind="input", name="IN", dtype="INT32")
        text += tensor.format(kind="output", name=output[0], dtype=output[1])
        text += "version_policy { all { } }\n" if name == "child" else ""
        (repository / name / "config.pbtxt").write_text(text + "instance_group { count: 1 kind: KIND_CPU }\n")


def ask(server):
    """The outcomes of all calls, in `initialize` and in `execute`."""
    status, _, answer = server.raw("POST", "/v2/repository/models/script/load", timeout=40)
    assert status == 200, answer
    body = {"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [0]}]}
    status, _, answer = server.raw("POST", "/v2/models/script/infer", json.dumps(body).encode(), timeout=40)
    assert status == 200, answer
    said = json.loads(json.loads(answer)["outputs"][0]["data"][0])
    return {where: [list(pair) for pair in zip(CALLS, outcomes)] for where, outcomes in zip(("initialize", "execute"), said)}


def main():
    from trireme_server import Server

    home = pathlib.Path(sys.argv[1])
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as repository:
        write(pathlib.Path(repository))
        flags = ("--model-control-mode=explicit", "--pinned-memory-pool-byte-size=0")
        with Server(repository, *flags, argv0=home / "bin" / "tritonserver", backends=home / "backends") as server:
            lines = {where: [json.dumps(pair) for pair in pairs] for where, pairs in ask(server).items()}
            server.process.terminate()
            server.process.wait(60)
    parts = [f" {json.dumps(where)}: [\n  " + ",\n  ".join(pairs) + "\n ]" for where, pairs in lines.items()]
    pathlib.Path(sys.argv[2]).write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
