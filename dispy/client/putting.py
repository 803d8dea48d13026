"""Large arguments that travel once to a node, by their content, whatever the number of jobs.

Whatever `cluster.put` was given, and, where nodes cannot map this program's memory, what is seen
a second time among the arguments of jobs. Contents live here as long as an object that
stands for them, or a job that needs them; so a node that takes over another's jobs gets them too.
Any thread; the parts of one call belong to the thread that packs it.
"""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dispy.protocol.frames import Memory, Shared
from dispy.protocol.messages import INLINE_LIMIT, Bulk, Payload
from dispy.shipping.contents import Content, digest_of
from dispy.shipping.payloads import CannotPack, pack
from dispy.shipping.stored import Part, pack_parts, rebuild_once
from dispy.shipping.translating import translate_if_possible

if TYPE_CHECKING:
    from dispy.client.session import Session

REPEATED_LEAST = 1024 * 1024  # bytes of a buffer; below, sending it again costs less than asking
REPEATED_MOST = 256 * 1024 * 1024  # above, a node's disk may be too small, unlike its memory
SEEN = 256  # buffers of which it is remembered that they were arguments

_packing = threading.local()  # `handles`: those that the call has which this thread packs


class PutObject:
    """Stands for an object that was put; a job gets that object in its place.

    It may be anywhere in arguments. `size` is in bytes. Its content is given up when this is
    not referred to any more, or its cluster is closed; jobs that were submitted keep it.
    """

    def __init__(self, contents: Sequence[Content], packed: tuple[Any, ...], size: int) -> None:
        self._contents, self._packed, self.size = contents, packed, size
        self._release: weakref.finalize[..., Any]

    def __reduce__(self) -> tuple[Any, ...]:
        handles = getattr(_packing, "handles", None)
        if handles is None:
            raise CannotPack("what cluster.put returns can only be in the arguments of a job")
        if not self._release.alive:
            raise CannotPack("the cluster that it was put into is closed")
        handles.append(self)
        return rebuild_once, self._packed

    def __copy__(self) -> "PutObject":
        return self

    def __deepcopy__(self, memo: Any) -> "PutObject":
        return self

    def __repr__(self) -> str:
        return f"<an object of {self.size:,} bytes that was put>"


class LargeArguments:
    """What a session knows of them; `in_use` is false until something is put."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.in_use = False
        # (identity, size) of a buffer's owner -> the last job that had it as an argument. Only a
        # hint: what lies there now decides.
        self._seen: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._digests: dict[tuple[int, int], bytes] = {}  # of those that never change

    # -- put

    def put(self, value: object) -> PutObject:
        """Take a copy of an object, and return what stands for it; raises CannotPack."""
        payload = translate_if_possible(pack(value, "the object"))  # it may go anywhere
        pickled, beside = (
            (payload.pickled, payload.beside) if isinstance(payload, Bulk) else (payload, [])
        )
        contents: list[Content] = []

        def part(memory: Any) -> Part | bytes:
            data: bytes | memoryview = _unchanging(memory)
            if len(data) < INLINE_LIMIT:
                return bytes(data)
            content = Content.of_memory(data)
            contents.append(content)
            return Part(content.digest, content.size, readonly=True)

        packed = (os.urandom(16), part(pickled), [part(buffer) for buffer in beside])
        made = PutObject(contents, packed, len(payload))
        for content in contents:
            self._session.contents.hold(content)
        digests = [content.digest for content in contents]
        # Perhaps inside the garbage collector, so nothing there may lock.
        made._release = weakref.finalize(
            made, self._session.hub.post, partial(_release, self._session, digests)
        )
        made._release.atexit = False
        self.in_use = True
        return made

    def noting(self, pack_it: Callable[[], Payload]) -> tuple[Payload, list[Content]]:
        """Return what `pack_it` packs, and the contents of the put objects in it."""
        before = getattr(_packing, "handles", None)
        handles: list[PutObject] = []
        _packing.handles = handles
        try:
            payload = pack_it()
        finally:
            _packing.handles = before
        found = {content.digest: content for each in handles for content in each._contents}
        return payload, list(found.values())

    # -- what is seen again

    def refer(self, payload: Bulk, job: int, far: bool) -> tuple[Payload, list[Content]]:
        """Return a call with the buffers that come again as contents, and these.

        `far`: some node is on another machine. Elsewhere it pays only while another job with
        the same buffer waits or runs.
        """
        contents: dict[bytes, Content] = {}
        parts: list[Any] = []
        for buffer in payload.beside:
            assert not isinstance(buffer, Shared), "it was packed just now"
            view = memoryview(buffer)
            content = self._content(view, job, far)
            if content is None:
                parts.append(view)
            else:
                contents[content.digest] = content
                parts.append(Part(content.digest, content.size, view.readonly))
        if not contents:
            return payload, []
        return pack_parts(payload.pickled, parts), list(contents.values())

    def _content(self, view: memoryview, job: int, far: bool) -> Content | None:
        if not REPEATED_LEAST <= view.nbytes <= REPEATED_MOST:
            return None
        key = id(view.obj), view.nbytes
        before = self._seen.pop(key, None)
        self._seen[key] = job
        if len(self._seen) > SEEN:
            oldest, _ = self._seen.popitem(last=False)
            self._digests.pop(oldest, None)
        if before is None or not (far or before in self._session.jobs):
            return None
        return self._held(view, key)

    def _held(self, view: memoryview, key: tuple[int, int]) -> Content:
        """Return the content of a buffer as it is now; one that is held already if it can."""
        fixed = isinstance(view.obj, bytes)
        digest = self._digests.get(key) if fixed else None
        content = self._session.contents.get(digest) if digest is not None else None
        if content is not None and content.is_of(view.obj):
            return content  # it keeps its bytes alive, so it is these
        content = self._session.contents.get(digest_of(view))
        if content is None:
            content = Content.of_memory(_unchanging(view))
        if fixed:
            self._digests[key] = content.digest
        return content


def _unchanging(memory: Memory) -> bytes | memoryview:
    """Return memory that nobody can change: itself, or a copy."""
    view = memoryview(memory)
    return view if isinstance(view.obj, bytes) else bytes(view)


def _release(session: "Session", digests: Collection[bytes]) -> None:
    for digest in digests:
        session.contents.release(digest)
