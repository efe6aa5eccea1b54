"""Loading, unloading and looking at models of the server."""
from . import frames, inference
from .errors import TritonModelException
from .types import NUMBERS

_FILE = "file:"
_LONGEST_PATH = 4096


def load_model(model_name, config="", files=None):
    """Loads a model, or loads it anew, and returns when it is ready. `config`: JSON that stands in for its configuration.
    `files`: contents (bytes) by "file:" and the path in the model's directory; they stand in for all of its files."""
    name, config = _text(model_name, "model_name"), _text(config, "config")
    failed = f"Failed to load model: failed to load '{model_name}'"
    if files is not None and not isinstance(files, dict):
        raise TritonModelException(f"{failed}: files must be a dict of contents by path, found {type(files).__name__}")
    given = []
    for path, contents in (files or {}).items():
        if not isinstance(path, str) or not path.startswith(_FILE):
            raise TritonModelException(f"{failed}: the path of a file begins with '{_FILE}', found {path!r}")
        path = path[len(_FILE):]
        if len(path.encode()) > _LONGEST_PATH:
            raise TritonModelException(f"{failed}: the path of a file is longer than {_LONGEST_PATH} bytes")
        if not isinstance(contents, (bytes, bytearray, memoryview)):
            raise TypeError(f"{failed}: file '{path}' must be bytes, found {type(contents).__name__}")
        given.append((path, bytes(contents)))

    def describe(question, place):
        head = frames.LOADING.pack(question, len(given), len(name), len(config))
        tensors = [place.put(path, NUMBERS["TYPE_UINT8"], [len(contents)], contents) for path, contents in given]
        return b"".join((head, name, config, *tensors))

    _expect(inference.link.ask_with_tensors(frames.LOAD, describe), "Failed to load model")


def unload_model(model_name, unload_dependents=False):
    """Unloads a model, and returns when it takes no more requests. With `unload_dependents` the models go, too, that were
    loaded only on behalf of this ensemble. A model may name itself: what it has to answer is still answered."""
    payload = bytes([bool(unload_dependents)]) + _text(model_name, "model_name")
    _expect(inference.link.ask(frames.UNLOAD, payload), "Failed to unload model")


def is_model_ready(model_name, model_version=""):
    """Whether this version of a model takes requests, or any if there is none given. An unknown model is not ready."""
    name, text = _text(model_name, "model_name"), model_version
    _text(text, "model_version")
    version = 0
    if text:
        # The digits of other scripts are digits, too, and no version.
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
            raise TritonModelException(
                f"Failed to check model readiness: model_version must be a whole number above 0, found {text!r}"
            )
        version = int(text)
    answer = _expect(inference.link.ask(frames.MODEL_READY, frames.OF_VERSION.pack(version) + name), "Failed to check model readiness")
    return answer == b"\1"


def _text(value, what):
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, found {type(value).__name__}")
    return value.encode()


def _expect(answered, failed):
    well, answer = answered
    if not well:
        raise TritonModelException(f"{failed}: {answer.decode(errors='replace')}")
    return answer
