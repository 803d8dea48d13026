"""How a call failed, in words that fit on the wire, and the exception itself where it packs."""

import os
import traceback
from dataclasses import dataclass

from dispy.model.errors import DispyError
from dispy.shipping.payloads import pack

TEXT_LIMIT = 64 * 1024  # characters of a traceback; the middle of a longer one is left out
ERROR_LIMIT = 1024 * 1024  # bytes of a packed exception; a larger one travels as text alone
# As compiled, which a frozen executable keeps: frames of these rooms are nothing to a user.
_PACKAGE = os.path.dirname(os.path.dirname((lambda: None).__code__.co_filename))
OWN_PLACES = tuple(os.path.join(_PACKAGE, room, "") for room in ("worker", "shipping"))


@dataclass(frozen=True, slots=True)
class Failure:
    """How one call failed: the traceback as text, and the exception itself where it packs."""

    text: str
    error: bytes | None


def describe_failure(error: BaseException) -> Failure:
    """Return what can be told of an exception that a user's code raised; never raises."""
    try:
        packed = pack(error, "the exception")
    except BaseException:  # foreign code: the exception's own class
        return Failure(_text(error), None)
    if not isinstance(packed, bytes) or len(packed) > ERROR_LIMIT:
        return Failure(_text(error), None)
    return Failure(_text(error), packed)


def _text(error: BaseException) -> str:
    """Return the traceback without frames of dispy, as text that any peer can take."""
    try:
        told = traceback.TracebackException.from_exception(error, compact=True)
        _strip(told, set())
        text = "".join(told.format())
        if isinstance(error, DispyError) and not told.stack:
            # Ours: its own text says it all; what an object's code raised may help its author.
            cause = "".join(told.__cause__.format()) if told.__cause__ else ""
            text = f"{error}\n{cause}"
    except BaseException:  # foreign code: the exception's own attributes
        text = f"{type(error).__name__} (its traceback cannot be shown)\n"
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) > TEXT_LIMIT:
        half = TEXT_LIMIT // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n[dispy left out {left_out} characters]\n{text[-half:]}"
    return text


def _strip(told: traceback.TracebackException, seen: set[int]) -> None:
    """Take dispy's own frames out of an exception and of all that it mentions."""
    if id(told) in seen:
        return
    seen.add(id(told))
    frames = [frame for frame in told.stack if not frame.filename.startswith(OWN_PLACES)]
    told.stack = traceback.StackSummary.from_list(frames)
    mentioned = [told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or [])]
    for other in mentioned:
        if other is not None:
            _strip(other, seen)
