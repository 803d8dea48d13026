"""Heads of frames whose buffers lie in memory files, which pass a Unix socket as descriptors."""

from collections.abc import Sequence
from typing import Any

from dispy.protocol.frames import Buffer, Shared, encode_head


class WithDescriptors(bytes):
    """A piece of the wire with which descriptors go, and what keeps these open until then."""

    descriptors: list[int]
    sources: list[Any]


def is_plain(piece: bytes | memoryview) -> bool:
    """Say whether no descriptors go with a piece."""
    return type(piece) is not WithDescriptors


def encode_bulk(
    kind: int, body: object, buffers: Sequence[Buffer], shares_memory: bool
) -> tuple[Sequence[Buffer], bytes]:
    """Return a frame's buffers and its head; where no memory is shared, buffers with the bytes.

    Raises FrameRefused as the receiver would.
    """
    shared = [buffer for buffer in buffers if isinstance(buffer, Shared)]
    if not shared:
        return buffers, encode_head(kind, body, buffers)
    if not shares_memory:
        buffers = [b.source.view() if isinstance(b, Shared) else b for b in buffers]
        return buffers, encode_head(kind, body, buffers)
    head = WithDescriptors(encode_head(kind, body, buffers))
    head.sources = [buffer.source for buffer in shared]
    head.descriptors = [source.descriptor for source in head.sources]
    return buffers, head
