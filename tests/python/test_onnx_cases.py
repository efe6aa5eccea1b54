"""The operator cases of the ONNX project (Debian's `libonnx-testdata`), through the server and through ONNX Runtime called
directly. Runs where TRIREME_ONNX_CASES names their folder, `…/libonnx-testdata/data`."""
import os
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.http as httpclient
from onnx import numpy_helper
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from test_onnxruntime import RUNTIME
from trireme_server import Server

CASES = os.environ.get("TRIREME_ONNX_CASES")
onnxruntime.set_default_logger_severity(4)
pytestmark = pytest.mark.skipif(not CASES, reason="TRIREME_ONNX_CASES is not set")


def tensors(folder, kind, names):
    """The tensors of a case by name; nothing if one is no tensor."""
    made = {}
    for number, name in enumerate(names):
        proto = onnx.TensorProto()
        try:
            proto.ParseFromString((folder / f"{kind}_{number}.pb").read_bytes())
            made[name] = numpy_helper.to_array(proto)
        except Exception:
            return None
    return made


def alike(a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind in "OSU":
        text = lambda value: value.decode() if isinstance(value, bytes) else str(value)  # noqa: E731
        return [text(value) for value in a.ravel()] == [text(value) for value in b.ravel()]
    return a.dtype == b.dtype and np.array_equal(a.ravel(), b.ravel(), equal_nan=a.dtype.kind == "f")


def direct(path, session, inputs):
    outputs = session.run(None, inputs)
    if any(not isinstance(output, np.ndarray) for output in outputs):
        return None
    return dict(zip([output.name for output in session.get_outputs()], outputs))


def usable():
    """(name, model, inputs, outputs of ONNX Runtime) of the cases with tensors that it runs as the project says."""
    for path in sorted(pathlib.Path(CASES).glob("*/*/model.onnx")):
        folder = path.parent / "test_data_set_0"
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            inputs = tensors(folder, "input", [one.name for one in session.get_inputs()])
            expected = tensors(folder, "output", [one.name for one in session.get_outputs()])
            outputs = inputs is not None and expected is not None and direct(path, session, inputs)
        except Exception:
            continue
        close = lambda a, b: np.asarray(b).dtype.kind in "OSU" or np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)  # noqa: E731
        if outputs and inputs and all(outputs[name].shape == value.shape and close(outputs[name], value) for name, value in expected.items()):
            yield f"{path.parent.parent.name}-{path.parent.name}", path, inputs, outputs


def ask(client, name, inputs):
    given = []
    for key, value in inputs.items():
        value = value.astype(object) if value.dtype.kind in "SU" else value
        shape = list(value.shape) or [1]
        tensor = httpclient.InferInput(key, shape, np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(value).reshape(shape))
        given.append(tensor)
    return client.infer(name, given)


def test_cases(tmp_path):
    cases = list(usable())
    for name, path, _, _ in cases:
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_bytes(path.read_bytes())
        (tmp_path / name / "config.pbtxt").write_text(
            'platform: "onnxruntime_onnx"\ninstance_group [ { count: 1 kind: KIND_CPU } ]\n'
            'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n')
    failed = []
    with Server(tmp_path, RUNTIME, "--exit-on-error=false", "--backend-config=onnxruntime,default-max-batch-size=0") as server:
        client = httpclient.InferenceServerClient(f"127.0.0.1:{server.http}")
        for name, _, inputs, outputs in cases:
            try:
                answer = ask(client, name, inputs)
                if not all(alike(answer.as_numpy(key), value) for key, value in outputs.items()):
                    failed.append(f"{name}: another result")
            except InferenceServerException as error:
                failed.append(f"{name}: {error.message()[:200]}")
        server.alive()
    print(f"{len(cases)} cases that ONNX Runtime {onnxruntime.__version__} passes, {len(cases) - len(failed)} alike")
    print("\n".join(failed))
    assert len(cases) > 500 and len(failed) <= 0.02 * len(cases), failed
