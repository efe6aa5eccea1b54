"""DLPack in both directions, by its C structures: numpy's own support has neither bfloat16 nor capsules."""
import collections
import ctypes

import numpy as np

from . import gpu
from .errors import TritonModelException
from .types import BF16, DTYPES, numpy_to_triton_type

CPU, CUDA, PINNED = 1, 2, 3

# What `take` gives of a tensor on a GPU.
OnGpu = collections.namedtuple("OnGpu", "shape memory length")


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("rank", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_IsValid.restype = ctypes.c_int
_api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_SetName.restype = ctypes.c_int
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]

_FRESH, _USED = b"dltensor", b"used_dltensor"

# number of the data type: (DLPack's code, bits)
_CODES = {
    1: (6, 8), 2: (1, 8), 3: (1, 16), 4: (1, 32), 5: (1, 64), 6: (0, 8), 7: (0, 16), 8: (0, 32), 9: (0, 64),
    10: (2, 16), 11: (2, 32), 12: (2, 64), BF16: (4, 16),
}
_NUMBERS = {code: number for number, code in _CODES.items()}

# What is exported lives until its deleter is called, which may be on any thread.
_exported = {}


@_Deleter
def _delete(managed):
    _exported.pop(ctypes.addressof(managed.contents), None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _drop_capsule(capsule):
    # Nobody has taken it. The object is being destroyed: it may be looked at through its address only.
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
    valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
    if valid(capsule, _FRESH):
        _exported.pop(get(capsule, _FRESH), None)


def export(array, dtype):
    """A capsule over the memory of an array whose elements are of the data type with this number."""
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    return _capsule(array.ctypes.data, _Device(CPU, 0), array.shape, dtype, array)


def export_gpu(memory, shape, dtype):
    """The same over memory of a GPU."""
    return _capsule(memory.address(), _Device(CUDA, memory.device), shape, dtype, memory)


def _capsule(data, device, dims, dtype, owner):
    code, bits = _CODES[dtype]
    shape = (ctypes.c_int64 * max(len(dims), 1))(*dims)
    tensor = _DLTensor(data, device, len(dims), _DataType(code, bits, 1), shape, None, 0)
    managed = _Managed(tensor, None, _delete)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, owner, shape)
    return _api.PyCapsule_New(address, _FRESH, ctypes.cast(_drop_capsule, ctypes.c_void_p))


class _Memory:
    """Keeps the memory of a tensor that came by DLPack, as long as numpy looks at it."""

    def __init__(self, managed, interface):
        self._managed = managed
        self.__array_interface__ = interface

    def __del__(self):
        managed = self._managed
        if managed.contents.deleter:
            managed.contents.deleter(managed)


def take(obj):
    """The memory of a capsule, or of an object with `__dlpack__`, as an array, and the number of its data type."""
    if isinstance(obj, np.ndarray) and obj.flags.c_contiguous and numpy_to_triton_type(obj.dtype) in _CODES:
        # Numpy gives no capsule of what is read only.
        return obj, numpy_to_triton_type(obj.dtype)
    if hasattr(obj, "__dlpack__") and hasattr(obj, "__dlpack_device__"):
        device, number = obj.__dlpack_device__()
        if int(device) not in (CPU, CUDA, PINNED):
            raise TritonModelException(
                f"the tensor is on device {int(device)}:{number}; this backend takes tensors of the host and of NVIDIA GPUs only"
            )
        obj = obj.__dlpack__()
    if not _api.PyCapsule_IsValid(obj, _FRESH):
        raise TritonModelException(
            "a DLPack capsule that is not used yet, or an object with __dlpack__ and __dlpack_device__, is expected"
        )
    managed = ctypes.cast(_api.PyCapsule_GetPointer(obj, _FRESH), ctypes.POINTER(_Managed))
    tensor = managed.contents.tensor
    if tensor.device.type not in (CPU, CUDA, PINNED):
        raise TritonModelException("the tensor is neither in the memory of the host nor of an NVIDIA GPU, as this backend needs")
    number = _NUMBERS.get((tensor.dtype.code, tensor.dtype.bits)) if tensor.dtype.lanes == 1 else None
    if number is None:
        raise TritonModelException(
            f"DLPack's type {tensor.dtype.code} with {tensor.dtype.bits} bits has no counterpart in the protocol"
        )
    shape = tuple(tensor.shape[axis] for axis in range(tensor.rank))
    if tensor.strides:
        step = 1
        for axis in reversed(range(tensor.rank)):
            if shape[axis] != 1 and tensor.strides[axis] != step and 0 not in shape:
                raise TritonModelException("the tensor is not contiguous in C order, as DLPack tensors must be here")
            step *= shape[axis]
    _api.PyCapsule_SetName(obj, _USED)
    dtype = DTYPES[number]
    if 0 in shape:
        _Memory(managed, None)
        return np.empty(shape, dtype), number
    if tensor.device.type == CUDA:
        length = DTYPES[number].itemsize * int(np.prod(shape, dtype=np.int64))
        owner = _Memory(managed, None)
        return OnGpu(shape, gpu.Foreign(tensor.device.id, tensor.data + tensor.offset, owner), length), number
    interface = {"shape": shape, "typestr": dtype.str, "data": (tensor.data + tensor.offset, False), "version": 3}
    return np.asarray(_Memory(managed, interface)), number
