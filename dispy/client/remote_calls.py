"""Calls on their way to a shared scheduler: for every Python, and in messages of many."""

from collections.abc import Iterator, Sequence

from dispy.protocol.messages import Payload
from dispy.shipping.payloads import CHUNK, is_items
from dispy.shipping.translating import CannotTranslate, translate

BATCH_JOBS = 4096  # in one message
BATCH_BYTES = 1024 * 1024  # of payloads, unless one job has more


def batches(payloads: Sequence[Payload]) -> Iterator[slice]:
    """Yield which of these calls go into one message."""
    first = size = 0
    for at, payload in enumerate(payloads):
        if at > first and (at - first >= BATCH_JOBS or size + len(payload) > BATCH_BYTES):
            yield slice(first, at)
            first, size = at, 0
        size += len(payload)
    yield slice(first, len(payloads))


def for_any_python(payload: Payload) -> Payload:
    """Return a call that nodes with another Python can load too, as far as its code has source."""
    head = CHUNK if is_items(payload) else b""
    try:
        return translate(payload, skip=len(head))
    except CannotTranslate:
        return payload  # such a node says so
