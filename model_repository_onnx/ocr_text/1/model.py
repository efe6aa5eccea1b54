"""The likeliest letter at each place; the same one at neighbouring places is one letter, and number 0 is none."""
import os

import numpy as np
import triton_python_backend_utils as pb_utils


def entries(data):
    """The fields with a length in a message of protobuf: (number, bytes)."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 2:
            length = number()
            yield key >> 3, data[at:at + length]
            at += length
        elif key & 7 == 0:
            number()
        else:
            at += 4 if key & 7 == 5 else 8


def letters_of(path):
    """The letters of the network, one a line in its property `character`; a space comes last."""
    with open(path, "rb") as file:
        model = memoryview(file.read())
    for field, value in entries(model):
        if field == 14:  # ModelProto.metadata_props
            pair = {key: bytes(text).decode() for key, text in entries(value)}
            if pair.get(1) == "character":
                return ["", *pair[2].splitlines(), " "]
    raise ValueError(f"{path} does not say which letters it knows")


class TritonPythonModel:
    def initialize(self, args):
        self.letters = letters_of(os.path.join(args["model_repository"], "..", "ocr_recognise", "1", "model.onnx"))

    def execute(self, requests):
        return [self.answer(*(pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("letters", "boxes")))
                for request in requests]

    def answer(self, likelihoods, boxes):
        texts, scores = [], []
        for line in likelihoods[:len(boxes)]:
            best = line.argmax(axis=1)
            kept = (best != 0) & np.concatenate(([True], best[1:] != best[:-1]))
            texts.append("".join(self.letters[letter] for letter in best[kept]))
            scores.append(line.max(axis=1)[kept].mean() if kept.any() else 0)
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("texts", np.array([text.encode() for text in texts], object)),
            pb_utils.Tensor("scores", np.array(scores, np.float32))])
