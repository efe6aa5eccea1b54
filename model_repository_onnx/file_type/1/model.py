"""Files to their types: makes Magika's input out of a file's first and last bytes, and a name out of its answer."""
import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils

HALF = 1024  # bytes from each end
BLOCK = 4096  # of an end, from which white space is stripped
NOTHING = 256  # stands for a byte that is not there


def features(data):
    """INT32 [2048]: the first and the last 1,024 bytes of the file."""
    made = np.full(2 * HALF, NOTHING, np.int32)
    first, last = data[:BLOCK].lstrip()[:HALF], data[-BLOCK:].rstrip()[-HALF:]
    made[:len(first)] = np.frombuffer(first, np.uint8)
    if last:
        made[-len(last):] = np.frombuffer(last, np.uint8)
    return made


class TritonPythonModel:
    def initialize(self, args):
        beside = os.path.join(args["model_repository"], "..", "magika", "1", "config.min.json")
        with open(beside, encoding="utf-8") as file:
            self.labels = json.load(file)["target_labels_space"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        (data,) = pb_utils.get_input_tensor_by_name(request, "file").as_numpy().ravel()
        asked = pb_utils.InferenceRequest(
            model_name="magika", requested_output_names=["target_label"],
            inputs=[pb_utils.Tensor("bytes", features(data)[None])]).exec()
        if asked.has_error():
            return pb_utils.InferenceResponse(error=asked.error())
        scores = pb_utils.get_output_tensor_by_name(asked, "target_label").as_numpy()[0]
        best = int(scores.argmax())
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("type", np.array([self.labels[best].encode()], object)),
            pb_utils.Tensor("score", scores[best:best + 1].astype(np.float32))])
