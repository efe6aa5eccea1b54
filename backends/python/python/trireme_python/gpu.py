"""Memory of GPUs, by CUDA's driver as it is on the machine: opened here if it is the server's, handed over if it is the model's."""
import contextlib
import ctypes
import struct
import threading

from .errors import TritonModelException

# Set in the number of a tensor that is on a GPU, in the place of a slab.
GPU = 1 << 30
# device, length of the handle, where the tensor begins in its allocation; then the handle
PLACE = struct.Struct("<IIQ")
_HANDLE = 64
# What a driver says while a thread records a CUDA graph; the GPU is as it was.
_RECORDING = range(900, 910)
_lock = threading.Lock()
_opening = threading.Lock()
_driver = None


class DriverError(TritonModelException):
    """A call of the driver that has failed."""

    def __init__(self, text, status):
        super().__init__(f"{text} ({status})")
        self.passes = status in _RECORDING


class Lost(Exception):
    """A GPU that this process cannot use any more."""


class _Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * _HANDLE)]


class _Driver:
    def __init__(self):
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise TritonModelException(f"there is no NVIDIA driver on this machine: {error}") from None
        self._contexts = {}
        # Memory of the server that is open here: handle -> [address, how many tensors are in it].
        self._opened = {}
        self.call("cuInit", 0)

    def call(self, name, *arguments):
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'error').decode()}", status)

    @contextlib.contextmanager
    def on(self, device):
        """A GPU's primary context, which all libraries of a process share, as that of this thread."""
        if device not in self._contexts:
            handle, context = ctypes.c_int(), ctypes.c_void_p()
            self.call("cuDeviceGet", ctypes.byref(handle), device)
            self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
            self._contexts[device] = context
        self.call("cuCtxPushCurrent_v2", self._contexts[device])
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def open(self, device, handle):
        with _lock:
            entry = self._opened.get((device, handle))
            if entry is None:
                address = ctypes.c_uint64()
                with self.on(device):
                    self.call("cuIpcOpenMemHandle_v2", ctypes.byref(address), _Handle.from_buffer_copy(handle), 1)
                entry = self._opened[device, handle] = [address.value, 0]
            entry[1] += 1
            return entry[0]

    def close(self, device, handle):
        with _lock:
            entry = self._opened[device, handle]
            entry[1] -= 1
            if entry[1] == 0:
                del self._opened[device, handle]
                with self.on(device):
                    self.call("cuIpcCloseMemHandle", ctypes.c_uint64(entry[0]))

    def synchronize(self, device):
        with self.on(device):
            self.call("cuCtxSynchronize")

    def export(self, device, address):
        """The handle of the allocation that an address is in, and where in it the address is."""
        base, size, handle = ctypes.c_uint64(), ctypes.c_size_t(), _Handle()
        with self.on(device):
            self.call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address))
            self.call("cuIpcGetMemHandle", ctypes.byref(handle), base)
        return bytes(handle.bytes), address - base.value

    def to_host(self, device, address, length):
        data = bytearray(length)
        with self.on(device):
            self.call("cuCtxSynchronize")
            if length:
                room = (ctypes.c_ubyte * length).from_buffer(data)
                self.call("cuMemcpyDtoH_v2", room, ctypes.c_uint64(address), ctypes.c_size_t(length))
        return bytes(data)


def driver():
    global _driver
    with _lock:
        if _driver is None:
            _driver = _Driver()
    return _driver


class Borrowed:
    """Memory of the server. It goes back when nobody has it any more; see `give_back`."""

    def __init__(self, link, number, place):
        self._link, self._number = link, number
        self.device, length, self._offset = PLACE.unpack_from(place)
        self._handle = bytes(place[PLACE.size : PLACE.size + length])
        self._base = None

    def address(self):
        if self._base is None:
            # Any threads of the model may ask; it is closed once.
            with _opening:
                if self._base is None:
                    self._base = driver().open(self.device, self._handle)
        return self._base + self._offset

    def __del__(self):
        # Wherever the last reference goes: no locks, no input or output.
        opened = None if self._base is None else (self.device, self._handle)
        self._link.returning_gpu.append((self._number, opened))


class Foreign:
    """Memory of the model, which keeps it as long as this is held."""

    def __init__(self, device, address, owner):
        self.device, self._address, self.owner = device, address, owner

    def address(self):
        return self._address


def give_back(returning, numbers):
    """Adds to `numbers` those of what came from the server and is not used any more, once no work reads it. What work may still read
    stays in `returning`."""
    opened = {}
    while returning:
        number, one = returning.popleft()
        if one is None:
            numbers.append(number)
        else:
            opened.setdefault(one[0], []).append((number, one))
    for device, those in opened.items():
        try:
            driver().synchronize(device)
            while those:
                driver().close(*those[-1][1])
                numbers.append(those.pop()[0])
        except DriverError as error:
            if not error.passes:
                raise Lost(f"the process ends, for its GPU {device} is lost: {error}") from None
            returning.extend(those)


def place_of(memory):
    """What opens memory of the model in the server, once all work that writes it is done; none if it cannot be opened there."""
    driver().synchronize(memory.device)
    try:
        handle, offset = driver().export(memory.device, memory.address())
    except TritonModelException:
        return None
    return PLACE.pack(memory.device, len(handle), offset) + handle
