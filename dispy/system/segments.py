"""Large data between processes of one machine: memory files that are mapped, not copied.

Whoever sends has a pool of segments, copies a buffer into one of them, and passes its
descriptor along; whoever receives maps it. Segments are used again: memory that the kernel
has not given before costs more than all the copies that this saves (64 MiB: 50 to 90 ms to fill
fresh memory, 6 to 8 ms for used memory). A lease on a segment ends when the last reference to
it does; a receiver says when the last view of its mapping is gone.

Thread-safe. Linux only: `SegmentPool.lease` returns None elsewhere, and buffers are copied.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

SHARED_SIZE = 1024 * 1024  # bytes; below this, two copies through a socket are as fast
POOL_SEGMENTS = 64  # each may cost a descriptor in three processes
POOL_BYTES = 512 * 1024 * 1024  # of one pool: what an idle process keeps at most
MAPPED_BYTES = 512 * 1024 * 1024  # of segments that a receiver keeps mapped

_Buffer = bytes | bytearray | memoryview


class Descriptor:
    """Owns a received descriptor; -1: this process could have no more."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def take_over(received: Sequence[Descriptor]) -> list[int]:
    """Return descriptors, which are the caller's to close now. OSError: one never came."""
    if any(each.descriptor < 0 for each in received):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    taken = [each.descriptor for each in received]
    for each in received:
        each.descriptor = -1
    return taken


DESCRIPTORS_SIZE = socket.CMSG_LEN(253 * struct.calcsize("i"))  # the kernel's limit a message


def unpack_descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came along with bytes of a Unix socket."""
    found: list[int] = []
    for _, kind, packed in ancillary:
        if kind == socket.SCM_RIGHTS:
            count = len(packed) // struct.calcsize("i")
            found += struct.unpack(f"{count}i", packed[: count * struct.calcsize("i")])
    return found


class _Segment:
    def __init__(self, token: int, size: int, descriptor: int) -> None:
        self.descriptor = -1  # not ours to close where it cannot be mapped
        self.memory = mmap.mmap(descriptor, size)
        self.token, self.size, self.descriptor = token, size, descriptor

    def close(self) -> None:
        self.__del__()
        with contextlib.suppress(BufferError):  # a view of it is still alive; it goes with that
            self.memory.close()

    def __del__(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _fresh(size: int) -> _Segment:
    token = int.from_bytes(os.urandom(8), "big") >> 1
    descriptor = os.memfd_create("dispy-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return _Segment(token, size, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


class Lease:
    """The right to a segment; it goes back to its pool with the last reference to this."""

    __slots__ = ("_free", "_segment", "descriptor", "size", "token")

    def __init__(self, segment: _Segment, size: int, free: "deque[_Segment]") -> None:
        self._segment: _Segment | None = segment
        self._free = free
        self.token, self.size, self.descriptor = segment.token, size, segment.descriptor

    def memory(self) -> memoryview:
        """Return the bytes, to be filled."""
        assert self._segment is not None, "an abandoned segment is not filled"
        return memoryview(self._segment.memory)[: self.size]

    def view(self) -> memoryview:
        """Return the bytes, to be copied where no descriptor can go."""
        return self.memory().toreadonly()

    def abandon(self) -> int:
        """Never use the segment again, somebody still looks at it; return its size."""
        segment, self._segment = self._segment, None
        if segment is None:
            return 0
        segment.close()
        return segment.size

    def __del__(self) -> None:
        if self._segment is not None:
            self._free.append(self._segment)


class SegmentPool:
    """A sender's segments; what is freed stays here, and goes with the pool."""

    def __init__(self, segments: int = POOL_SEGMENTS, size: int = POOL_BYTES) -> None:
        """segments: at most; size: bytes of all of them, at most."""
        self._free: deque[_Segment] = deque()
        self._most, self._most_bytes = segments, size
        self._count = self._bytes = 0

    def share(self, buffer: _Buffer) -> Lease | None:
        """Copy a buffer into a segment; None where that is not possible or of no use."""
        view = memoryview(buffer).cast("B")
        lease = self.lease(len(view))
        if lease is not None:
            lease.memory()[:] = view
        return lease

    def lease(self, size: int) -> Lease | None:
        """Return a segment to be filled; None where that is not possible or of no use."""
        if sys.platform != "linux" or size < SHARED_SIZE:
            return None
        segment = self._take(size)
        return None if segment is None else Lease(segment, size, self._free)

    def claim(self, token: int, size: int, descriptor: int) -> Lease:
        """Take over a segment that a process forked from this one has filled by its copy of the
        pool: one that was free here, or one that it has made. Raises OSError or ValueError."""
        for segment in self._free:
            if segment.token == token:
                self._free.remove(segment)
                return Lease(segment, size, self._free)
        length = os.fstat(descriptor).st_size
        own = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            segment = _Segment(token, length, own)
        except BaseException:
            os.close(own)
            raise
        self._count += 1
        self._bytes += length
        return Lease(segment, size, self._free)

    def abandon(self, lease: Lease) -> None:
        """Take a segment out of the pool: its receiver keeps looking at it."""
        size = lease.abandon()
        if size:
            self._count -= 1
            self._bytes -= size

    def _take(self, size: int) -> _Segment | None:
        """Return a free segment that fits without waste, or a new one, or None at the limits."""
        for _ in range(len(self._free)):
            try:
                segment = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if size <= segment.size <= 2 * size:
                return segment
            if self._count >= self._most or self._bytes + size > self._most_bytes:
                self._drop(segment)
            else:
                self._free.append(segment)
        size = -(-size // SHARED_SIZE) * SHARED_SIZE
        if self._count >= self._most or self._bytes + size > self._most_bytes:
            return None
        try:
            segment = _fresh(size)
        except OSError:  # no descriptor or no memory is left; a copy will do
            return None
        self._count += 1
        self._bytes += size
        return segment

    def _drop(self, segment: _Segment) -> None:
        self._count -= 1
        self._bytes -= segment.size
        segment.close()


class MappedSegments:
    """A receiver's mappings, kept for the next use of the same segment."""

    def __init__(self, released: Callable[[int], None]) -> None:
        """`released` is called with a token, in any thread, when no view of it is left."""
        self._released = released
        self._mapped: OrderedDict[int, mmap.mmap] = OrderedDict()

    def view(self, token: int, size: int, descriptor: int) -> tuple[memoryview, "weakref.ref[Any]"]:
        """Return writable memory over a segment, and a reference that dies with its last view.

        Raises ValueError where the file is smaller than what it is said to hold, or could be made
        so: whoever then looks at it is ended by SIGBUS. Raises OSError.
        """
        memory = self._mapped.pop(token, None)
        if memory is None:
            length = os.fstat(descriptor).st_size
            if size > length:
                raise ValueError(f"a segment of {length} bytes cannot hold {size}")
            if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ValueError("a segment could be made smaller while it is looked at")
            memory = mmap.mmap(descriptor, length)
        self._mapped[token] = memory
        self._bound()
        # A ctypes array is what both exports memory and can be referred to weakly.
        exporter = (ctypes.c_char * size).from_buffer(memory)
        weakref.finalize(exporter, self._released, token).atexit = False
        return memoryview(exporter).cast("B"), weakref.ref(exporter)

    def _bound(self) -> None:
        total = sum(map(len, self._mapped.values()))
        while total > MAPPED_BYTES and len(self._mapped) > 1:
            _, memory = self._mapped.popitem(last=False)
            total -= len(memory)
            with contextlib.suppress(BufferError):  # views of it live; it goes with them
                memory.close()
