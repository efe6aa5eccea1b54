"""The connection to the server. Many threads may wait for something to arrive; one of them reads for all."""
import array
import collections
import os
import select
import socket
import struct
import threading
import time

import numpy as np

from . import frames, gpu
from .memory import Borrowed, Own

_SLAB = struct.Struct("<IQ")


class Closed(Exception):
    """The server is gone."""


class Link:
    def __init__(self, connection):
        self._socket = connection
        self._files = None
        self._sending = threading.RLock()
        self._changed = threading.Condition()
        self._reading = False
        self._closed = False
        self._next = 0
        # Whether the model wants tensors to stay on its GPU, where the server can open them.
        self.keeps_gpu = False
        self.returning = collections.deque()
        # The same of tensors on GPUs, and what of them is open.
        self.returning_gpu = collections.deque()
        # How many tensors on GPUs the server has lent, and how many it has back.
        self.gpu_taken = self._gpu_returned = 0
        # Tensors of the model on GPUs that the server has, by number.
        self._lent_gpu = {}
        self.borrowed = Borrowed(self)
        self.own = Own(self)
        # What the server has asked to be done: frames of kind EXECUTE and FINISH.
        self.work = collections.deque()
        self._answers = {}
        self._replies = {}
        self._taken = {}
        self._spawned = 0
        self._process = os.getpid()

    def fileno(self):
        return self._socket.fileno()

    # -- reading

    def setup(self):
        """The first frame: a document, and with it the socket over which files are passed."""
        head, ancillary, _, _ = self._socket.recvmsg(frames.HEAD.size, socket.CMSG_SPACE(4))
        files = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files.frombytes(data[: len(data) - len(data) % files.itemsize])
        if len(head) < frames.HEAD.size or not files:
            raise Closed
        self._files = socket.socket(fileno=files[0])
        length, kind = frames.HEAD.unpack(head)
        assert kind == frames.SETUP
        return bytes(self._exactly(length))

    def _exactly(self, length):
        body = bytearray(length)
        if length:
            got = self._socket.recv_into(body)
            if got < length:
                view = memoryview(body)
                while got < length:
                    more = self._socket.recv_into(view[got:])
                    if more == 0:
                        raise Closed
                    got += more
        return body

    def _frame(self):
        head = self._socket.recv(frames.HEAD.size)
        while len(head) < frames.HEAD.size:
            more = self._socket.recv(frames.HEAD.size - len(head)) if head else b""
            if not more:
                raise Closed
            head += more
        length, kind = frames.HEAD.unpack(head)
        return kind, self._exactly(length)

    def wait(self, ready, seconds=None):
        """Returns when `ready()` is true, or so long has passed: which of them. It is called with the lock held, after each frame
        that has arrived."""
        end = None if seconds is None else time.monotonic() + seconds
        changed = self._changed
        with changed:
            while True:
                if ready():
                    return True
                if self._closed:
                    raise Closed
                if not self._reading:
                    self._reading = True
                    break
                if not changed.wait(None if end is None else max(end - time.monotonic(), 0)):
                    return bool(ready())
        try:
            while True:
                if end is not None and not self._comes_until(end):
                    with changed:
                        self._reading = False
                        changed.notify_all()
                        return bool(ready())
                kind, body = self._frame()
                with changed:
                    self._dispatch(kind, body)
                    if ready():
                        self._reading = False
                        changed.notify_all()
                        return True
                    changed.notify_all()
        except BaseException as error:
            with changed:
                self._reading = False
                self._closed = self._closed or isinstance(error, (Closed, OSError))
                changed.notify_all()
            if isinstance(error, OSError):
                raise Closed from error
            raise

    def _comes_until(self, end):
        """Whether there is something to read before that time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(max(end - time.monotonic(), 0) * 1000))

    def later(self, kind, work):
        """Adds something to do, as if the server had asked for it."""
        with self._changed:
            self.work.append((kind, work))
            self._changed.notify_all()

    def _dispatch(self, kind, body):
        if kind in (frames.EXECUTE, frames.FINISH):
            self.work.append((kind, body))
        elif kind == frames.ANSWER:
            (call,) = struct.unpack_from("<Q", body, frames.META.size)
            receive = self._answers.get(call)
            if receive is not None:
                receive(body)
        elif kind == frames.REPLY:
            question, well = frames.REPLIED.unpack_from(body)
            if question in self._replies:
                self._replies[question] = (well, bytes(body[frames.REPLIED.size:]))
        elif kind == frames.ACCEPTED:
            request, count = frames.TAKEN.unpack(body)
            if request in self._taken:
                self._taken[request] = count
        elif kind == frames.RELEASED:
            self._returned(struct.unpack(f"<{len(body) // 4}I", body))
        elif kind == frames.FORGET:
            for slab in struct.unpack(f"<{len(body) // 4}I", body):
                self.borrowed.forget(slab)

    def lend_gpu(self, memory):
        """A number for memory of the model, which is kept until the server gives it back."""
        number = self.number() & (gpu.GPU - 1) | gpu.GPU
        self._lent_gpu[number] = memory
        return number

    def _returned(self, slabs):
        for slab in slabs:
            if slab & gpu.GPU:
                self._lent_gpu.pop(slab, None)
        with self._sending:
            dropped = self.own.released(slabs)
            # Their numbers are never used again, so the server may close its files.
            if dropped:
                self._raw(frames.RETURN, struct.pack(f"<{len(dropped)}I", *(slab | 0x80000000 for slab in dropped)))

    def lent(self, slab, views):
        """The memory of a slab that a frame names; a new one's file comes first. `views`: those of the same frame."""
        view = views.get(slab)
        if view is None:
            view = views[slab] = self._lent(slab)
        return view

    def _lent(self, slab):
        with self._changed:
            while slab not in self.borrowed._maps:
                data, ancillary, _, _ = self._files.recvmsg(_SLAB.size, socket.CMSG_SPACE(4))
                if len(data) < _SLAB.size or not ancillary:
                    raise Closed
                files = array.array("i")
                files.frombytes(ancillary[0][2][: files.itemsize])
                number, size = _SLAB.unpack(data)
                self.borrowed.add(number, files[0], size)
            return self.borrowed.look(slab)

    # -- writing

    def give_file(self, file, slab, size):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
        self._files.sendmsg([_SLAB.pack(slab, size)], rights)

    def _raw(self, kind, body):
        self._socket.sendall(frames.HEAD.pack(len(body), kind) + body)

    def _flush_returning(self):
        """Says what is not used any more. The result: why the process has to end, if it has to."""
        slabs, lost = [], None
        while self.returning:
            slabs.append(self.returning.popleft())
        if self.returning_gpu:
            before = len(slabs)
            try:
                gpu.give_back(self.returning_gpu, slabs)
            except gpu.Lost as error:
                lost = error
            self._gpu_returned += len(slabs) - before
        if slabs:
            self._raw(frames.RETURN, struct.pack(f"<{len(slabs)}I", *slabs))
        return lost

    def _end_of(self, lost):
        # The next process can use the GPU again, and the server takes back what this one has.
        self._raw(frames.LOG, bytes([1]) + frames.text(str(lost)))
        os._exit(1)

    def has_gpu(self):
        """Whether the server waits for tensors on GPUs."""
        return self.gpu_taken != self._gpu_returned

    def give_back(self):
        """Says what is not used any more, without a frame to go with."""
        self._send()

    def send(self, kind, body=b""):
        self._send((kind, body))

    def _send(self, *given):
        with self._sending:
            try:
                lost = self._flush_returning() if self.returning or self.returning_gpu else None
                for frame in given:
                    self._raw(*frame)
                if lost is not None:
                    self._end_of(lost)
            except OSError as error:
                raise Closed from error

    def send_tensors(self, kind, describe):
        """Sends what `describe(tensors)` makes of the place where tensors are put."""
        with self._sending:
            tensors = Outgoing(self, self.keeps_gpu and kind != frames.CALL)
            meta = describe(tensors)
            head = frames.META.size + len(meta)
            padding = bytes(frames.align(head) - head)
            self.send(kind, b"".join((frames.META.pack(len(meta)), meta, padding, *tensors.inline)))

    # -- what is waited for

    def number(self):
        with self._sending:
            self._next += 1
            return self._next

    def ask(self, what, payload=b""):
        """A question to the server, and its answer: whether it went well, and bytes."""
        return self._asked(lambda question: self.send(frames.ASK, frames.QUESTION.pack(question, what) + payload))

    def ask_with_tensors(self, kind, describe):
        """A question with tensors. `describe` is given its number and the place where tensors are put."""
        return self._asked(lambda question: self.send_tensors(kind, lambda place: describe(question, place)))

    def _asked(self, send):
        question = self.number() & 0xFFFFFFFF
        with self._changed:
            self._replies[question] = None
        try:
            send(question)
            self.wait(lambda: self._replies[question] is not None)
            return self._replies[question]
        finally:
            with self._changed:
                del self._replies[question]

    def listen(self, call, receive):
        """`receive(body)` gets the frames that answer a call, on whichever thread reads."""
        with self._changed:
            self._answers[call] = receive

    def stop_listening(self, call):
        with self._changed:
            self._answers.pop(call, None)

    def count_taken(self, request):
        with self._changed:
            self._taken[request] = 0

    def stop_counting(self, request):
        with self._changed:
            self._taken.pop(request, None)

    def wait_taken(self, request, count):
        """Returns when the server has taken so many responses of a request, or wants no more."""
        if self._taken.get(request, count) < count:
            self.wait(lambda: self._taken.get(request, count) >= count)

    def keep_reading(self):
        """Reads on a thread of its own until `stop_reading`: for those who cannot wait on the thread that they run on."""
        with self._changed:
            self._spawned += 1
            start = self._spawned == 1
        if start:
            threading.Thread(target=self._read_along, daemon=True, name="trireme-read").start()

    def _read_along(self):
        try:
            self.wait(lambda: self._spawned == 0)
        except Closed:
            pass

    def stop_reading(self):
        with self._changed:
            self._spawned -= 1
            self._changed.notify_all()


class Outgoing:
    """Where the tensors of a frame go: into the frame, or into one slab."""

    def __init__(self, link, takes_gpu):
        self._link = link
        self._takes_gpu = takes_gpu
        self._lent = []
        self._offset = 0
        self._total = 0
        self.inline = []
        # Where large tensors go until it is full. The next one is twice as large, so that a frame has few of them: the
        # server takes their files only when it has read the frame.
        self._slab, self._memory, self._used = 0, b"", 0

    def put_gpu(self, name, dtype, shape, memory, length):
        """Describes a tensor on a GPU. It stays there if the server can open its memory, and is copied otherwise."""
        place = gpu.place_of(memory) if self._takes_gpu and length else None
        if place is None:
            return self.put(name, dtype, shape, gpu.driver().to_host(memory.device, memory.address(), length))
        offset, name = self._offset, name.encode()
        padding = frames.align(len(place)) - len(place)
        self.inline.append(place + bytes(padding))
        self._offset += len(place) + padding
        number = self._link.lend_gpu(memory)
        self._lent.append(number)
        return frames.TENSOR.pack(dtype, len(shape), len(name), number, offset, length) + struct.pack(f"<{len(shape)}q", *shape) + name

    def lent(self):
        return len(self._lent)

    def take_back(self, lent):
        """What was lent since: the server is not told of it."""
        while len(self._lent) > lent:
            self._link._lent_gpu.pop(self._lent.pop(), None)

    def put(self, name, dtype, shape, data):
        """Places a tensor, given as bytes, a view of bytes or a contiguous array, and describes it."""
        length = len(data) if isinstance(data, bytes) else data.nbytes
        name = name.encode()
        slab, offset = 0, self._offset
        if length <= frames.SMALL_TENSOR and self._total + length <= frames.SMALL_TENSORS:
            data = data if isinstance(data, bytes) else data.tobytes()
            padding = frames.align(length) - length
            self.inline.append(data)
            self.inline.append(bytes(padding))
            self._offset += length + padding
            self._total += length
        else:
            if len(self._memory) - self._used < length:
                self._slab, self._memory = self._link.own.take(max(length, 2 * len(self._memory)))
                self._used = 0
            slab, offset = self._slab, self._used
            self._used = frames.align(offset + length, 64)
            # Copied: the server reads it after the model has gone on.
            self._memory[offset : offset + length] = data.reshape(-1).view("u1").data if isinstance(data, np.ndarray) else data
        head = frames.TENSOR.pack(dtype, len(shape), len(name), slab, offset, length)
        return head + struct.pack(f"<{len(shape)}q", *shape) + name
