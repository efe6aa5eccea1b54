"""Data types: their numbers in the protocol, their names in a configuration, and numpy's types."""
import struct

import numpy as np

BYTES, BF16 = 13, 14

# (number, name in a configuration, numpy's type)
_TYPES = [
    (1, "TYPE_BOOL", np.bool_),
    (2, "TYPE_UINT8", np.uint8),
    (3, "TYPE_UINT16", np.uint16),
    (4, "TYPE_UINT32", np.uint32),
    (5, "TYPE_UINT64", np.uint64),
    (6, "TYPE_INT8", np.int8),
    (7, "TYPE_INT16", np.int16),
    (8, "TYPE_INT32", np.int32),
    (9, "TYPE_INT64", np.int64),
    (10, "TYPE_FP16", np.float16),
    (11, "TYPE_FP32", np.float32),
    (12, "TYPE_FP64", np.float64),
    (BYTES, "TYPE_STRING", np.object_),
]
NUMPY = {number: kind for number, _, kind in _TYPES}
# A dtype is made faster from a dtype than from a type.
DTYPES = {number: np.dtype(kind).newbyteorder("<") for number, _, kind in _TYPES if number != BYTES}
DTYPES[BF16] = np.dtype("<u2")
NUMBERS = {name: number for number, name, _ in _TYPES}
NUMBERS["TYPE_BF16"] = BF16
NAMES = {number: name for name, number in NUMBERS.items()}
_BY_DTYPE = {np.dtype(kind): number for number, _, kind in _TYPES}


def triton_to_numpy_type(data_type):
    """The numpy type of a data type's number."""
    return NUMPY.get(int(data_type))


def numpy_to_triton_type(data_type):
    """The number of a numpy type's data type, None if there is none. Texts and bytes are 13, TYPE_STRING."""
    dtype = np.dtype(data_type)
    number = _BY_DTYPE.get(dtype)
    if number is None:
        number = BYTES if dtype.kind in "SU" else _BY_DTYPE.get(dtype.newbyteorder("="))
    return number


def triton_string_to_numpy(triton_type_string):
    """The numpy type of "TYPE_FP32" and the like."""
    return NUMPY[NUMBERS[triton_type_string]]


def serialize_byte_tensor(input_tensor):
    """The elements in C order, each a little-endian `u32` length and its bytes; None for other types."""
    if input_tensor.dtype.kind not in "OSU":
        return None
    parts = []
    for element in input_tensor.ravel().tolist():
        if not isinstance(element, bytes):
            element = bytes(element) if isinstance(element, (bytearray, memoryview)) else str(element).encode()
        parts.append(len(element).to_bytes(4, "little"))
        parts.append(element)
    return b"".join(parts)


def deserialize_bytes_tensor(encoded_tensor):
    """The elements as a flat array of bytes objects."""
    data, offset, elements = bytes(encoded_tensor), 0, []
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if offset + length > len(data):
            raise ValueError("a tensor of strings ends within an element")
        elements.append(data[offset : offset + length])
        offset += length
    flat = np.empty(len(elements), dtype=np.object_)
    flat[:] = elements
    return flat
