"""Payloads whose large buffers lie in memory files, for processes of one machine.

The sender moves the buffers of a payload into segments of its pool; the receiver puts views of
mapped segments in their place before it unpickles. See `dispy.system.segments`.
"""

import weakref
from typing import Any

from dispy.protocol.frames import Buffer, Shared
from dispy.protocol.messages import Bulk, Payload
from dispy.system.segments import SHARED_SIZE, Lease, MappedSegments, SegmentPool


def share(payload: Payload, pool: SegmentPool) -> Payload:
    """Return the payload with its large buffers in segments, as far as the pool has room."""
    if isinstance(payload, bytes) or payload.size < SHARED_SIZE:
        return payload
    return Bulk(payload.pickled, [_shared(buffer, pool) for buffer in payload.beside])


def _shared(buffer: Buffer, pool: SegmentPool) -> Buffer:
    if isinstance(buffer, Shared):
        return buffer
    lease = pool.share(buffer)
    if lease is None:
        return buffer
    return Shared(lease.token, lease.size, lease, memoryview(buffer).readonly)


def shared_buffers(payload: Payload) -> list[Shared]:
    """Return the buffers of a payload that lie in segments."""
    if isinstance(payload, bytes):
        return []
    return [buffer for buffer in payload.beside if isinstance(buffer, Shared)]


def mapped(
    payload: Payload, segments: MappedSegments
) -> tuple[Payload, list[tuple[int, "weakref.ref[Any]"]]]:
    """Return the payload with views in place of shared buffers, and for each its token and a
    reference that dies with its last view. Raises OSError or ValueError for a bad descriptor."""
    if isinstance(payload, bytes) or not any(isinstance(b, Shared) for b in payload.beside):
        return payload, []
    beside: list[Buffer] = []
    watched = []
    for buffer in payload.beside:
        if isinstance(buffer, Shared):
            view, alive = segments.view(buffer.token, buffer.size, buffer.source.descriptor)
            beside.append(view)
            watched.append((buffer.token, alive))
        else:
            beside.append(buffer)
    return Bulk(payload.pickled, beside), watched


def give_back(payload: Payload | None, held: Any, pool: SegmentPool) -> None:
    """Take the segments of a finished call, except those whose tokens are still `held`."""
    if not isinstance(payload, Bulk) or not isinstance(held, list):
        return
    for buffer in shared_buffers(payload):
        if buffer.token in held and isinstance(buffer.source, Lease):
            pool.abandon(buffer.source)
