"""What is too large for a message: known by its digest, read in pieces by whoever wants it.

The digest (BLAKE2b, 32 bytes) is taken once; a file that is another one by the time it is read is
refused by name, and the receiver compares the digest of what it got. Thread-safe.
"""

import os
import threading
from collections import OrderedDict
from time import time_ns
from typing import TYPE_CHECKING

from dispy.model.errors import DispyError

if TYPE_CHECKING:
    from hashlib import blake2b

DIGEST_SIZE = 32  # bytes
PIECE_SIZE = 1024 * 1024  # bytes that a reader asks for at once, at most
KNOWN_FILES = 20_000  # whose digests are remembered: 200 bytes each
# A file system counts time in ticks of some milliseconds, others in seconds: a file as young as
# this may be written once more and still look the same.
SETTLED_NS = 2_000_000_000


class ContentLost(DispyError):
    """A content cannot be read any more, or is another one by now; the text says which."""


class Content:
    """A file or a piece of memory that nodes may ask for by its digest."""

    __slots__ = ("_memory", "_path", "_stamp", "digest", "name", "size")

    def __init__(self, digest: bytes, size: int, source: str | memoryview, name: str = "") -> None:
        """`source`: the path of a file that was hashed just now, or memory that never changes."""
        self.digest, self.size = digest, size
        self._memory = source if isinstance(source, memoryview) else None
        # Absolute, because a program may change its directory.
        self._path = "" if isinstance(source, memoryview) else os.path.abspath(source)
        self.name = name or self._path
        self._stamp = _stamp(os.stat(self._path)) if self._path else None

    @classmethod
    def of_file(cls, path: str) -> "Content":
        """Return the content of a regular file; raises OSError, and ContentLost if it changes."""
        before = _stamp(os.stat(path))
        digest = _known(path, before)
        if digest is None:
            digest = _digest_of_file(path)
        content = cls(digest, before[0], path)
        if content._stamp != before:
            raise ContentLost(f"file {path!r} changed while it was read")
        _remember(path, before, digest)
        return content

    @classmethod
    def of_memory(cls, data: bytes | memoryview, name: str = "a value") -> "Content":
        """Return the content of memory, which must not change from now on."""
        view = memoryview(data).cast("B")
        return cls(digest_of(view), view.nbytes, view, name)

    @property
    def in_memory(self) -> bool:
        """Whether reading it never waits for a disk."""
        return self._memory is not None

    def is_of(self, owner: object) -> bool:
        """Say whether this is memory of that very object."""
        return self._memory is not None and self._memory.obj is owner

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return `length` bytes from `offset`, or what there is; raises ContentLost."""
        if self._memory is not None:
            return self._memory[offset : offset + length]
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                piece = _read_whole(descriptor, offset, min(length, max(0, self.size - offset)))
                now = _stamp(os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ContentLost(
                f"file {self.name!r} cannot be read any more: {error.strerror or error}"
            ) from None
        if now != self._stamp:
            raise ContentLost(
                f"file {self.name!r} changed while it was being sent. Send a copy that nobody "
                f"writes to, or submit again"
            )
        return piece


def digest_of(data: bytes | memoryview) -> bytes:
    """Return the digest of bytes."""
    return new_digest(data).digest()


def new_digest(data: bytes | memoryview = b"") -> "blake2b":
    """Return a digest to which more can be added."""
    from hashlib import blake2b  # 3 ms, which start-up need not wait for: it brings OpenSSL

    return blake2b(data, digest_size=DIGEST_SIZE)


_digests: OrderedDict[tuple[str, tuple[int, int, int, int]], bytes] = OrderedDict()
_lock = threading.Lock()


def _known(path: str, stamp: tuple[int, int, int, int]) -> bytes | None:
    with _lock:
        return _digests.get((os.path.abspath(path), stamp))


def _remember(path: str, stamp: tuple[int, int, int, int], digest: bytes) -> None:
    if abs(time_ns() - stamp[1]) < SETTLED_NS:
        return
    with _lock:
        _digests[os.path.abspath(path), stamp] = digest
        while len(_digests) > KNOWN_FILES:
            _digests.popitem(last=False)


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def _digest_of_file(path: str) -> bytes:
    digest = new_digest()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE_SIZE):
            digest.update(piece)
    return digest.digest()


def _read_whole(descriptor: int, offset: int, length: int) -> bytes:
    piece = os.pread(descriptor, length, offset)
    while len(piece) < length:
        more = os.pread(descriptor, length - len(piece), offset + len(piece))
        if not more:
            break
        piece += more
    return piece
