"""A picture [height, width, 3] in red, green and blue to FP32 [1, 3, h, w]: h and w are multiples of 32, values -1 to 1."""
import numpy as np
import triton_python_backend_utils as pb_utils

SHORT, LONG = 736, 1600  # pixels that the sides are brought to, as far as both can be


def resize(image, height, width):
    """Bilinear, by the middles of the pixels. `image`: [h, w, c]."""
    def places(size, there):
        at = np.clip((np.arange(size) + 0.5) * there / size - 0.5, 0, there - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, there - 1), (at - low).astype(np.float32)
    image = image.astype(np.float32)
    low, high, part = places(height, image.shape[0])
    rows = image[low] * (1 - part)[:, None, None] + image[high] * part[:, None, None]
    low, high, part = places(width, image.shape[1])
    return rows[:, low] * (1 - part)[:, None] + rows[:, high] * part[:, None]


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def answer(self, image):
        if 0 in image.shape:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(
                f"the picture has the shape {list(image.shape)}", pb_utils.TritonError.INVALID_ARG))
        sides = image.shape[:2]
        scale = min(max(1.0, SHORT / min(sides)), LONG / max(sides))
        height, width = (max(32, round(side * scale / 32) * 32) for side in sides)
        # The network was trained with blue first.
        pixels = resize(image[:, :, ::-1], height, width) / 127.5 - 1
        return pb_utils.InferenceResponse([pb_utils.Tensor("x", np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))])
