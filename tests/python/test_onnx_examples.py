"""The examples of `model_repository_onnx/`, beside ONNX Runtime called directly with the same inputs."""
import importlib.util
import json
import sys
import types

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

from test_onnxruntime import RUNTIME
from test_python import PYTHON
from trireme_server import ROOT, Server

REPOSITORY = ROOT / "model_repository_onnx"
WEIGHTS = {name: REPOSITORY / name / "1" / "model.onnx" for name in ("magika", "minilm_onnx", "silero_vad", "ocr_detect", "ocr_recognise")}
pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in WEIGHTS.values()), reason="no weights: cargo xtask models --onnx")

# Five by seven, from the top row down.
FONT = {
    "A": "01110 10001 10001 11111 10001 10001 10001", "D": "11110 10001 10001 10001 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111", "H": "10001 10001 10001 11111 10001 10001 10001",
    "I": "01110 00100 00100 00100 00100 00100 01110", "L": "10000 10000 10000 10000 10000 10000 11111",
    "O": "01110 10001 10001 10001 10001 10001 01110", "R": "11110 10001 10001 11110 10100 10010 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100", "W": "10001 10001 10001 10101 10101 11011 10001",
}


@pytest.fixture(scope="module")
def server():
    with Server(REPOSITORY, RUNTIME, PYTHON) as server:
        yield server
        server.alive()


@pytest.fixture(scope="module")
def client(server):
    return httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=120)


def infer(client, model, outputs=None, **inputs):
    tensors = []
    for name, value in inputs.items():
        kinds = {"i": "INT", "f": "FP", "u": "UINT"}
        dtype = "BYTES" if value.dtype == object else f"{kinds[value.dtype.kind]}{8 * value.itemsize}"
        tensor = httpclient.InferInput(name, list(value.shape), dtype)
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    return client.infer(model, tensors, outputs=outputs)


def direct(model, **inputs):
    session = onnxruntime.InferenceSession(WEIGHTS[model], providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def test_magika(client):
    given = np.random.default_rng(0).integers(0, 257, (5, 2048), np.int32)
    assert np.array_equal(infer(client, "magika", bytes=given).as_numpy("target_label"), direct("magika", bytes=given)[0])


@pytest.mark.parametrize("data, is_a", [
    ((ROOT / "tests/python/trireme_server.py").read_bytes(), "python"), (json.dumps({"a": [1, 2, {"b": None}]} , indent=1).encode() * 3, "json"),
    (b"RIFF\x24\x08\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80>\x00\x00\x00}\x00\x00\x02\x00\x10\x00data\x00\x08\x00\x00" + bytes(2048), "wav"),
    ((ROOT / "Cargo.toml").read_bytes(), "toml")])
def test_file_type(client, data, is_a):
    answer = infer(client, "file_type", file=np.array([data], object))
    assert answer.as_numpy("type")[0].decode() == is_a, answer.as_numpy("score")


def test_minilm(client):
    ids = np.array([[101, 1037, 2158, 2003, 5983, 2833, 1012, 102]] * 3, np.int64)
    ids[1, 2] = 2450
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    answer = infer(client, "minilm_onnx", **given).as_numpy("last_hidden_state")
    assert np.array_equal(answer, direct("minilm_onnx", **given)[0])
    mean = answer[0].mean(axis=0)
    # The first numbers of this sentence with whole weights; those of eight bits are near them.
    assert np.allclose(mean[:4] / np.linalg.norm(mean), [0.0332, 0.0044, -0.0063, 0.0484], atol=0.01)


def test_silero_remembers_each_recording(server):
    """Two recordings at once, in turn; each as ONNX Runtime hears it alone when it is given the state back."""
    random = np.random.default_rng(1)
    time = np.arange(2 * 512 * 12).reshape(2, 12, 512) / 16000
    tones = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20)) * (0.3 + 0.3 * np.sin(2 * np.pi * 3 * time))
    audio = np.stack([tones[0], random.normal(0, 0.01, (12, 512))]).astype(np.float32)
    before = np.concatenate([np.zeros((2, 1, 64), np.float32), audio[:, :-1, -64:]], axis=1)
    pieces = np.concatenate([before, audio], axis=2)
    heard = [[], []]
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        for step in range(12):
            for recording in (0, 1):
                tensor = grpcclient.InferInput("input", [1, 576], "FP32")
                tensor.set_data_from_numpy(pieces[recording, step:step + 1])
                answer = client.infer("silero_vad", [tensor], sequence_id=recording + 1, sequence_start=step == 0, sequence_end=step == 11)
                assert [output.name for output in answer.get_response().outputs] == ["speech_probs"]
                heard[recording].append(answer.as_numpy("speech_probs")[0])
    session = onnxruntime.InferenceSession(WEIGHTS["silero_vad"], providers=["CPUExecutionProvider"])
    for recording in (0, 1):
        state = {"h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
        alone = []
        for step in range(12):
            probability, *states = session.run(None, {"input": pieces[recording, step:step + 1], **state})
            state = dict(zip("hc", states))
            alone.append(probability[0])
        assert np.array_equal(heard[recording], alone)
    assert heard[0] != heard[1]


def picture(lines, scale=5):
    """Black letters on white, a little blurred: UINT8 [height, width, 3]."""
    image = np.ones((60 + 16 * scale * len(lines), 120 + 6 * scale * max(map(len, lines))))
    for number, line in enumerate(lines):
        bits = [[int(bit) for letter in line for bit in FONT[letter].split()[row] + "0"] for row in range(7)]
        drawn = np.kron(bits, np.ones((scale, scale)))
        top = 30 + 16 * scale * number
        image[top:top + drawn.shape[0], 40:40 + drawn.shape[1]] -= drawn
    for axis in (0, 1):
        image = np.apply_along_axis(lambda row: np.convolve(row, np.ones(3) / 3, "same"), axis, image)
    return np.repeat((image.clip(0, 1) * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def script(name, monkeypatch):
    """The class of a Python model, called without a server: answers are dictionaries of arrays."""
    utils = types.ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse = lambda name, value: (name, value), dict
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / name / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(module)
    return module.TritonPythonModel()


def test_ocr(client, monkeypatch):
    image = picture(["HELLO", "WORLD", "TRIDENT".replace("N", "A")])
    answer = infer(client, "ocr", image=image)
    assert [text.decode() for text in answer.as_numpy("texts")] == ["HELLO", "WORLD", "TRIDEAT"]
    pixels = script("ocr_prepare", monkeypatch).answer(image)["x"]
    cut = script("ocr_crop", monkeypatch).answer(image, direct("ocr_detect", x=pixels)[0])
    text = script("ocr_text", monkeypatch)
    text.initialize({"model_repository": str(REPOSITORY / "ocr_text")})
    alone = text.answer(direct("ocr_recognise", x=cut["crops"])[0], cut["boxes"])
    assert np.array_equal(answer.as_numpy("boxes"), cut["boxes"]) and np.array_equal(answer.as_numpy("scores"), alone["scores"])
    assert answer.as_numpy("scores").min() > 0.9


def test_a_picture_without_text(client):
    answer = infer(client, "ocr", image=np.full((100, 200, 3), 255, np.uint8))
    assert answer.as_numpy("texts").shape == (0,) and answer.as_numpy("boxes").shape == (0, 4)
    with pytest.raises(httpclient.InferenceServerException, match="the picture has the shape"):
        infer(client, "ocr", image=np.zeros((0, 200, 3), np.uint8))
