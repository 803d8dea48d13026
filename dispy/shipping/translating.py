"""Payloads for another Python: the same pickle, with the source texts of the code in it.

A pickle that holds no code is for every Python as it is. One that does is wrapped together
with the texts; it stays loadable by the Python that made it. What it holds is not looked at
again: its state is that of the moment when it was packed.
"""

import os
import pickle
import sys
from importlib import import_module
from typing import Any

from dispy.model.errors import DispyError
from dispy.protocol.frames import Memory
from dispy.protocol.messages import Bulk, Payload

# Before each piece of code in a pickle, see `dispy.shipping.byvalue`. Random, so that no data which
# this program sends on can have it: what follows is unmarshalled here, which must not be anybody's.
MARK = b"dispy code:" + os.urandom(16)
# Modules of the standard library that pickles of some versions name and others do not have.
_RENAMED = {"pathlib._local": "pathlib"}


class CannotTranslate(DispyError):
    """Something in a payload has no source text; the message says what, without versions."""


class _WithSources:
    """Stands for a pickle and its source texts while that is pickled."""

    def __init__(self, sources: dict[bytes, tuple[Any, ...]], pickled: Memory, beside: int) -> None:
        # What is not read-only goes beside without a word about that, so that anything fits in.
        places = [pickle.PickleBuffer(bytearray()) for _ in range(beside)]
        self._arguments = sources, bytes(pickled), places

    def __reduce__(self) -> tuple[Any, ...]:
        return load_with_sources, self._arguments


def load_with_sources(
    sources: dict[bytes, tuple[Any, ...]], pickled: bytes, beside: list[Any]
) -> Any:
    """Return the value of a wrapped pickle."""
    from dispy.shipping.byvalue import sources_at_hand

    with sources_at_hand(sources):
        return pickle.loads(pickled, buffers=beside)


def translate(payload: Payload, skip: int = 0) -> Payload:
    """Return a payload that every Python can load; raises CannotTranslate.

    `skip` bytes stand before the pickle. Made of what this program has packed itself.
    """
    head: Any = payload.pickled if isinstance(payload, Bulk) else payload
    pickled = bytes(head)
    if MARK not in pickled:  # 20 us a megabyte
        return payload
    # Loaded already, by packing.
    from dispy.shipping.byvalue import codes_in
    from dispy.shipping.source import NoSource, snippet_of

    sources: dict[bytes, tuple[Any, ...]] = {}
    try:
        for name, code in codes_in(pickled):
            sources[name] = tuple(snippet_of(code))
    except NoSource as error:
        raise CannotTranslate(str(error)) from None
    beside = payload.beside if isinstance(payload, Bulk) else []
    wrapped = _WithSources(sources, pickled[skip:], len(beside))
    packed = pickled[:skip] + pickle.dumps(wrapped, 5, buffer_callback=_aside)
    return Bulk(packed, beside) if beside else packed


def translate_if_possible(payload: Payload) -> Payload:
    """Return a payload that every Python can load, or, where there is no source, ours alone."""
    try:
        return translate(payload)
    except CannotTranslate:
        return payload


def _aside(buffer: pickle.PickleBuffer) -> None:
    """Leave a buffer out of the pickle."""


class _Refusal:
    """Stands for a call that cannot be sent: loading it raises the reason."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, (self._reason,)


def refuse(reason: str) -> None:
    """Raise the reason for which something could not be sent, where it should have arrived."""
    raise DispyError(reason)


def refusal(reason: str, head: bytes = b"") -> bytes:
    """Return the payload of a call that ends with this reason."""
    return head + pickle.dumps(_Refusal(reason), 5)


def expect_others() -> None:
    """Get ready for pickles of another Python, in this whole process."""
    for name, now in _RENAMED.items():
        if name not in sys.modules:
            try:
                import_module(name)
            except ImportError:
                sys.modules[name] = import_module(now)
