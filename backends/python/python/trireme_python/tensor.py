"""Tensors: arrays of the model's, or views of what the server has sent."""
import struct

import numpy as np

from . import dlpack, frames, gpu
from .errors import TritonModelException
from .types import BF16, BYTES, DTYPES, NAMES, deserialize_bytes_tensor, numpy_to_triton_type, serialize_byte_tensor

_DIMS = [struct.Struct(f"<{rank}q") for rank in range(65)]


class Tensor:
    """A name and an array, or memory of a GPU. Inputs look at shared memory: who keeps one longer than its request copies it."""

    __slots__ = ("_name", "_dtype", "_shape", "_array", "_buffer", "_offset", "_length", "_gpu")

    def __init__(self, name, numpy_array):
        if not name:
            raise TritonModelException("the name of a tensor must not be empty")
        if isinstance(name, bytes):
            name = name.decode()
        array = numpy_array if isinstance(numpy_array, np.ndarray) else np.asarray(numpy_array)
        self._dtype = numpy_to_triton_type(array.dtype)
        if self._dtype is None:
            raise TritonModelException(f"tensor '{name}': numpy's type {array.dtype} has no counterpart in the protocol")
        self._name = name
        self._array = array
        self._shape = None
        self._buffer = None
        self._gpu = None

    @classmethod
    def _on_gpu(cls, name, dtype, shape, memory, length):
        """`memory`: a Borrowed or a Foreign."""
        tensor = cls.__new__(cls)
        tensor._name, tensor._dtype, tensor._shape, tensor._length = name, dtype, shape, length
        tensor._array = tensor._buffer = None
        tensor._gpu = memory
        return tensor

    @classmethod
    def _received(cls, name, dtype, shape, buffer, offset, length):
        tensor = cls.__new__(cls)
        tensor._name, tensor._dtype, tensor._shape = name, dtype, shape
        tensor._buffer, tensor._offset, tensor._length = buffer, offset, length
        tensor._array = None
        tensor._gpu = None
        return tensor

    def name(self):
        return self._name

    def triton_dtype(self):
        """The data type's number in the protocol."""
        return self._dtype

    def shape(self):
        """The dimensions, a list."""
        return list(self._array.shape if self._shape is None else self._shape)

    def is_cpu(self):
        """Whether it is in the memory of the host, and not of a GPU."""
        return self._gpu is None

    def as_numpy(self):
        """The array. Elements of TYPE_STRING are bytes objects."""
        if self._dtype == BF16:
            raise TritonModelException(
                f"tensor '{self._name}' is BF16, which numpy does not have: use to_dlpack() and from_dlpack()"
            )
        return self._raw()

    def _raw(self):
        array = self._array
        if array is None:
            if self._gpu is not None:
                raise TritonModelException(f"tensor '{self._name}' is on GPU {self._gpu.device}: use to_dlpack()")
            if self._dtype == BYTES:
                data = memoryview(self._buffer)[self._offset : self._offset + self._length]
                array = deserialize_bytes_tensor(data).reshape(self._shape)
            elif self._length == 0:
                array = np.empty(self._shape, DTYPES[self._dtype])
            else:
                array = np.ndarray(self._shape, DTYPES[self._dtype], self._buffer, self._offset)
            self._array = array
        return array

    def _outgoing(self, place, name, dtype=None):
        """Puts the tensor where the server reads it, and describes it. `dtype`: what the server expects."""
        if dtype is not None and dtype != self._dtype:
            return self._converted(dtype)._outgoing(place, name)
        if self._gpu is not None:
            return place.put_gpu(name, self._dtype, self._shape, self._gpu, self._length)
        array = self._array
        if array is None:
            shape = self._shape
            data = memoryview(self._buffer)[self._offset : self._offset + self._length]
            return place.put(name, self._dtype, shape, bytes(data) if self._length <= frames.SMALL_TENSOR else data)
        shape = array.shape if self._shape is None else self._shape
        if self._dtype == BYTES:
            return place.put(name, BYTES, shape, serialize_byte_tensor(array))
        if not array.flags.c_contiguous:
            array = array.copy(order="C")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        return place.put(name, self._dtype, shape, array)

    def _converted(self, dtype):
        """The same values in the type that the configuration says, if none is lost."""
        if BYTES in (dtype, self._dtype) or BF16 in (dtype, self._dtype) or self._gpu is not None:
            raise self._wrong_type(dtype)
        array = self._raw()
        to_bool = np.dtype(DTYPES[dtype]).kind == "b"
        if not to_bool and not np.can_cast(array.dtype, DTYPES[dtype], "same_kind"):
            raise self._wrong_type(dtype)
        converted = array.astype(DTYPES[dtype])
        if (to_bool or array.dtype.kind in "iu") and not np.array_equal(array, converted):
            raise self._wrong_type(dtype, ", and a value does not fit")
        return Tensor(self._name, converted)

    def _wrong_type(self, dtype, more=""):
        return TritonModelException(
            f"output '{self._name}' is {NAMES.get(self._dtype)}, its configuration says {NAMES.get(dtype)}{more}"
        )

    def to_dlpack(self):
        """The tensor as a DLPack capsule, without a copy."""
        if self._dtype == BYTES:
            raise TritonModelException(f"tensor '{self._name}' holds strings, which DLPack does not have")
        if self._gpu is not None:
            return dlpack.export_gpu(self._gpu, self._shape, self._dtype)
        return dlpack.export(self._raw(), self._dtype)

    def __dlpack__(self, stream=None, **_):
        return self.to_dlpack()

    def __dlpack_device__(self):
        return (dlpack.CPU, 0) if self._gpu is None else (dlpack.CUDA, self._gpu.device)

    @staticmethod
    def from_dlpack(name, obj):
        """A tensor over the memory of a capsule, or of an object with `__dlpack__`, without a copy. It must be in the
        memory of the host or of a GPU, contiguous and in C order."""
        if not name:
            raise TritonModelException("the name of a tensor must not be empty")
        array, dtype = dlpack.take(obj)
        if isinstance(array, dlpack.OnGpu):
            return Tensor._on_gpu(name, dtype, array.shape, array.memory, array.length)
        tensor = Tensor.__new__(Tensor)
        tensor._name, tensor._dtype, tensor._array, tensor._shape = name, dtype, array, None
        tensor._buffer = tensor._gpu = None
        return tensor


def read_tensors(link, body, position, count, data, views):
    """The tensors that are described at `position`; the data of small ones begins at `data`, and
    `views` are the slabs of the frame so far."""
    tensors = []
    unpack, size = frames.TENSOR.unpack_from, frames.TENSOR.size
    for _ in range(count):
        dtype, rank, name_length, slab, offset, length = unpack(body, position)
        position += size
        shape = _DIMS[rank].unpack_from(body, position)
        position += 8 * rank
        name = body[position : position + name_length].decode()
        position += name_length
        if slab & gpu.GPU:
            link.gpu_taken += 1
            memory = gpu.Borrowed(link, slab, memoryview(body)[data + offset :])
            tensors.append(Tensor._on_gpu(name, dtype, shape, memory, length))
        elif slab:
            tensors.append(Tensor._received(name, dtype, shape, link.lent(slab, views), offset, length))
        else:
            tensors.append(Tensor._received(name, dtype, shape, body, data + offset, length))
    return tensors, position
