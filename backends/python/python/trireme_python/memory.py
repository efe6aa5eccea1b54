"""Shared memory: slabs that the server lends for inputs, and slabs of our own for outputs."""
import mmap
import os
import weakref

SMALLEST = 64 * 1024
# Free slabs of our own that are kept, in bytes.
KEPT = 64 * 1024 * 1024


class Borrowed:
    """The server's slabs. One is lent with a batch and goes back when nothing looks at its memory any more."""

    def __init__(self, link):
        self._link = link
        self._maps = {}
        self._lent = {}

    def add(self, slab, file, size):
        self._maps[slab] = mmap.mmap(file, size)
        os.close(file)

    def look(self, slab):
        """The memory of a slab. Arrays over it keep the view, and the view keeps the slab."""
        view = memoryview(self._maps[slab])
        self._lent[slab] = weakref.ref(view, lambda _: self._give_back(slab))
        return view

    def _give_back(self, slab):
        # Called wherever the last reference goes: no locks, no input or output.
        self._lent.pop(slab, None)
        self._link.returning.append(slab)

    def forget(self, slab):
        self._maps.pop(slab, None)


class Own:
    """Our slabs, lent to the server with a frame until it says that it has read them."""

    def __init__(self, link):
        self._link = link
        self._next = 1
        self._free = []
        self._lent = {}

    def take(self, size):
        """A slab of at least so many bytes: its number and its memory."""
        fitting = [entry for entry in self._free if entry[0] >= size]
        if fitting:
            entry = min(fitting, key=lambda entry: entry[0])
            self._free.remove(entry)
        else:
            capacity = max(SMALLEST, 1 << (size - 1).bit_length())
            file = os.memfd_create("trireme-output", os.MFD_CLOEXEC)
            try:
                os.ftruncate(file, capacity)
                entry = (capacity, self._next, mmap.mmap(file, capacity))
                self._next += 1
                self._link.give_file(file, entry[1], capacity)
            finally:
                os.close(file)
        self._lent[entry[1]] = entry
        return entry[1], entry[2]

    def released(self, slabs):
        for slab in slabs:
            entry = self._lent.pop(slab, None)
            if entry is not None:
                self._free.append(entry)
        dropped = []
        while sum(entry[0] for entry in self._free) > KEPT:
            entry = max(self._free, key=lambda entry: entry[0])
            self._free.remove(entry)
            dropped.append(entry[1])
        return dropped
