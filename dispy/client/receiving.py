"""Files that jobs send with `dispy_send_file`: taken piece by piece into the client's directory.

A node offers a file, we ask for its pieces, a few at a time, and say when it is in its place.
An offer that comes again, after a broken link, goes on where the first one was. The hub talks;
a thread of its own writes, because a disk may be slow.
"""

import logging
import os
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from dispy.client.waiting import make_event
from dispy.model.errors import DispyError
from dispy.protocol.frames import Buffer, FrameRefused, Shared
from dispy.protocol.messages import Kind

if TYPE_CHECKING:
    from dispy.client.callbacks import Callbacks
    from dispy.client.hub import Hub
    from dispy.scheduler.nodes import RemoteNode
    from dispy.shipping.arriving import ArrivingFile

logger = logging.getLogger("dispy.client")

PIECE_BYTES = 1024 * 1024
PIECES_AHEAD = 4  # asked for and not written yet
END_SECONDS = 5.0  # that a disk may take at the program's end
REMEMBERED = 1000  # answers that one node may not have got; a job waits for each of its own
KEY_BYTES = 64  # of a key at most, which is remembered; a node of ours makes 16
OFFERS_LIMIT = 256  # files of one node at once; a node of ours offers no more
_Key = tuple[str, bytes]  # a node's id and the key that it gave the file: known to others or not


class _Arriving:
    """One file. Positions are in bytes, and belong to the hub."""

    __slots__ = ("asked", "file", "job", "name", "node", "size", "taken", "written")

    def __init__(self, node: "RemoteNode", job: int, name: str, size: int) -> None:
        self.node, self.job, self.name, self.size = node, job, name, size
        self.asked = self.taken = self.written = 0
        self.file: ArrivingFile | None = None  # once its thread has made it


class Directory(Protocol):
    """Where the files of a cluster's jobs go, and how large they may be (bytes; 0: any)."""

    @property
    def directory(self) -> str: ...
    @property
    def max_file_size(self) -> int: ...


class JobsSender(Protocol):
    """Whose jobs they are: a session, or a recovery."""

    @property
    def hub(self) -> "Hub": ...
    @property
    def disk(self) -> "Callbacks": ...
    @property
    def jobs(self) -> Container[int]: ...
    @property
    def clusters(self) -> Mapping[int, Directory]: ...


class Receiving:
    """All files that are on their way to this program. Everything else runs on the hub."""

    def __init__(self, session: JobsSender) -> None:
        self._session = session
        self._disk = session.disk
        self.arriving: dict[_Key, _Arriving] = {}

    def offered(
        self, node: "RemoteNode", cluster_id: int, job: int, number: bytes, table: dict[str, Any]
    ) -> None:
        """Begin to take a file, go on with it, or say again what became of it.

        Raises FrameRefused for a key that no node of ours makes.
        """
        if len(number) > KEY_BYTES:
            raise FrameRefused(f"an OFFER with a key of {len(number)} bytes")
        if number in node.files_answered:
            node.tell(Kind.TOOK, [number, node.files_answered[number]])
            return
        key = node.node_id, number
        arriving = self.arriving.get(key)
        if arriving is not None:
            arriving.node, arriving.asked = node, arriving.taken
            if arriving.file is not None:
                self._ask(key, arriving)
            return
        cluster = self._session.clusters.get(cluster_id)
        name, size = table.get("name"), table.get("size")
        mode, modified = table.get("mode"), table.get("modified")
        if cluster is None or job not in self._session.jobs:
            self._answer(node, key, "the job is over for its client")
            return
        if not (
            isinstance(name, bytes) and _whole(size) and _whole(mode) and _whole(modified)
        ):  # fmt: skip
            self._answer(node, key, "the node does not say what it is")
            return
        if sum(node_id == node.node_id for node_id, _ in self.arriving) >= OFFERS_LIMIT:
            self._answer(node, key, f"{OFFERS_LIMIT} other files are being sent already")
            return
        arriving = _Arriving(node, job, os.fsdecode(name), size)
        if cluster.max_file_size and size > cluster.max_file_size:
            self._refuse(
                key, arriving, f"it has {size} bytes, and this program takes "
                f"{cluster.max_file_size} at most (max_file_size)",
            )  # fmt: skip
            return
        self.arriving[key] = arriving
        self._disk.put(self._begin, key, arriving, cluster.directory, mode, modified)

    def piece(
        self, node: "RemoteNode", number: bytes, offset: int, why: str | None, data: Buffer
    ) -> None:
        """Take a piece that was asked for, or the news that there is none."""
        key = node.node_id, number
        arriving = self.arriving.get(key)
        if arriving is None:
            return  # its job ended, or it failed here, while this was on its way
        if why is not None:
            self._refuse(key, arriving, why)
            return
        assert not isinstance(data, Shared), "checked"
        length = len(data)
        if offset != arriving.taken or not 0 < length <= arriving.asked - offset:
            self._refuse(key, arriving, "the node sends other pieces than were asked for")
            return
        arriving.taken += length
        self._disk.put(self._write, key, arriving, data, arriving.taken == arriving.size)

    def forget(self, jobs: Sequence[int]) -> None:
        """Drop what these jobs have not sent to its end: they are final, or begin again."""
        if not self.arriving:
            return
        for key, arriving in list(self.arriving.items()):
            if arriving.job in jobs:
                del self.arriving[key]
                self._disk.put(_discard, arriving)

    def end(self) -> None:
        """Drop all, and return when no part of a file is left; once the hub has ended."""
        self.forget([arriving.job for arriving in self.arriving.values()])
        done = make_event()
        self._disk.put(done.set)
        done.wait(END_SECONDS)

    def _ask(self, key: _Key, arriving: _Arriving) -> None:
        """Ask for the next pieces, as far as they can be written soon."""
        until = min(arriving.size, arriving.written + PIECES_AHEAD * PIECE_BYTES)
        while arriving.asked < until:
            length = min(PIECE_BYTES, arriving.size - arriving.asked)
            arriving.node.tell(Kind.FETCH, [key[1], arriving.asked, length])
            arriving.asked += length

    def _answer(self, node: "RemoteNode", key: _Key, why: str | None) -> None:
        answered, (_, number) = node.files_answered, key
        answered[number] = why
        if len(answered) > REMEMBERED:
            del answered[next(iter(answered))]
        node.tell(Kind.TOOK, [number, why])

    def _refuse(self, key: _Key, arriving: _Arriving, why: str) -> None:
        where = arriving.node.name
        logger.warning("file %r of a job on node %s is not taken: %s", arriving.name, where, why)
        if self.arriving.pop(key, None) is not None:
            self._disk.put(_discard, arriving)
        self._answer(arriving.node, key, why)

    def _wrote(self, key: _Key, written: int, why: str | None, done: bool) -> None:
        """Take the word of the thread: go on, or answer."""
        arriving = self.arriving.get(key)
        if arriving is None:
            return
        if why is not None:
            self._refuse(key, arriving, why)
            return
        arriving.written += written
        if done:
            del self.arriving[key]
            logger.debug("%s has come from node %s", arriving.name, arriving.node.name)
            self._answer(arriving.node, key, None)
        else:
            self._ask(key, arriving)

    # -- on the thread that writes

    def _begin(
        self, key: _Key, arriving: _Arriving, directory: str, mode: int, modified: int
    ) -> None:
        from pathlib import Path  # 5 ms that programs whose jobs send no file need not wait for

        from dispy.shipping.arriving import ArrivingFile

        try:
            arriving.file = ArrivingFile(Path(directory), arriving.name, mode, modified)
        except (OSError, OverflowError, ValueError, DispyError) as error:
            self._tell(key, 0, str(error), False)
            return
        self._write(key, arriving, b"", arriving.size == 0)

    def _write(self, key: _Key, arriving: _Arriving, data: Any, last: bool) -> None:
        file, why = arriving.file, None
        assert file is not None, "nothing is asked for before it is there"
        try:
            file.write(data)
            if last:
                file.finish()
        except (OSError, OverflowError, ValueError) as error:  # a full disk, or discarded before
            why = str(error)
        self._tell(key, len(data), why, last)

    def _tell(self, key: _Key, written: int, why: str | None, done: bool) -> None:
        self._session.hub.post(lambda: self._wrote(key, written, why, done))


def _whole(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _discard(arriving: _Arriving) -> None:
    if arriving.file is not None:
        arriving.file.discard()
