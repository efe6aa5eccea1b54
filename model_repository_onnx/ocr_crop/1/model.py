"""From the map of text to crops of one height: the bright regions of the map, each widened to the letters' whole size."""
import numpy as np
import triton_python_backend_utils as pb_utils

BRIGHT, SURE = 0.3, 0.5  # what belongs to a region, and what the mean over its box must reach
WIDEN = 1.6  # the map shows the middle of a line only
SMALLEST = 3  # pixels of the map
HEIGHT, WIDTH = 48, 320  # of a crop; longer lines are wider


def regions(bright):
    """Boxes (top, left, bottom, right) of the connected regions, row by row out of runs of bright pixels."""
    boxes, parents, above = [], [], []

    def root(number):
        while parents[number] != number:
            number = parents[number]
        return number

    for y, row in enumerate(bright):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        here = []
        for left, right in zip(edges[::2].tolist(), edges[1::2].tolist()):
            touching = {root(number) for start, end, number in above if start <= right and left <= end}
            if touching:
                number = min(touching)
            else:
                number = len(parents)
                parents.append(number)
                boxes.append([y, left, y + 1, right])
            for other in touching | {number}:
                parents[other] = number
                a, b = boxes[number], boxes[other]
                boxes[number] = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
            a = boxes[number]
            boxes[number] = [a[0], min(a[1], left), y + 1, max(a[3], right)]
            here.append((left, right, number))
        above = here
    return [box for number, box in enumerate(boxes) if parents[number] == number]


def lines(text_map):
    """The boxes of lines, from top to bottom and from left to right, widened."""
    found = []
    for top, left, bottom, right in regions(text_map > BRIGHT):
        height, width = bottom - top, right - left
        if min(height, width) < SMALLEST or text_map[top:bottom, left:right].mean() < SURE:
            continue
        more = WIDEN * height * width / (2 * (height + width))
        found.append((top - more, left - more, bottom + more, right + more))
    return sorted(found, key=lambda box: (round((box[0] + box[2]) / 2 / 10), box[1]))


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
        return [self.answer(*(pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("image", "map")))
                for request in requests]

    def answer(self, image, text_map):
        text_map = text_map[0, 0]
        scale = [side / there for side, there in zip(image.shape, text_map.shape)] * 2
        boxes, cut = [], []
        for box in lines(text_map):
            top, left, bottom, right = (int(round(edge * by)) for edge, by in zip(box, scale))
            top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, image.shape[0]), min(right, image.shape[1])
            if bottom > top and right > left:
                boxes.append((left, top, right, bottom))
                cut.append(image[top:bottom, left:right, ::-1])
        widths = [max(1, round(HEIGHT * one.shape[1] / one.shape[0])) for one in cut]
        crops = np.zeros((max(1, len(cut)), 3, HEIGHT, max([WIDTH, *widths])), np.float32)
        for crop, one, width in zip(crops, cut, widths):
            crop[:, :, :width] = (resize(one, HEIGHT, width) / 127.5 - 1).transpose(2, 0, 1)
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("crops", crops), pb_utils.Tensor("boxes", np.array(boxes, np.float32).reshape(-1, 4))])
