"""What a nursery holds for its workers: a function or a program, ready to be called.

A call's payload is a pickle of (arguments, keywords). A payload that begins with CHUNK is a
pickle of many items, each one call, whose results travel as one list (`JobCluster.map`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from dispy.model.errors import JobTimeout
from dispy.protocol.messages import Payload
from dispy.shipping.failures import describe_failure
from dispy.shipping.payloads import CHUNK, CannotPack, pack, unpack


@dataclass(slots=True)
class Computation:
    """`call` is what each job calls; `names` are the globals it may change, if any."""

    name: str
    call: Callable[..., Any]
    names: dict[str, Any] | None
    is_program: bool = False
    setup: Callable[..., Any] | None = None
    cleanup: Callable[..., Any] | None = None


def function_of(part: Any) -> FunctionType | None:
    """Return the function within what can be called, None where it is not Python's."""
    while not isinstance(part, FunctionType):
        if isinstance(part, MethodType):
            part = part.__func__
        elif hasattr(part, "func"):  # functools.partial
            part = part.func
        elif isinstance(part, type):
            return None
        else:
            part = getattr(type(part), "__call__", None)  # noqa: B004  # wanted itself
            if not isinstance(part, FunctionType):
                return None
    return part


def call_each(function: Callable[..., Any], packed: Payload) -> Payload:
    """Return, packed, what `function` gave for each item of a chunk, and whether any failed.

    An item that failed has a Failure at its place. The loop is `list.extend`'s own, which
    keeps what came before an exception; a million calls a second need that.
    """
    items = unpack(packed, skip=len(CHUNK))
    results: list[Any] = []
    failed = False
    rest = iter(items)
    while len(results) < len(items):
        try:
            results.extend(map(function, rest))
            if len(results) < len(items):  # only StopIteration ends it early and in silence
                raise StopIteration
        except (KeyboardInterrupt, JobTimeout):
            raise
        except BaseException as error:  # foreign code
            results.append(describe_failure(error))
            failed = True
    try:
        return pack((results, failed), "the results")
    except CannotPack:
        return pack((list(map(_packable, results)), True), "the results")


def _packable(result: Any) -> Any:
    """Return a result, or the Failure that stands for one which cannot be sent."""
    try:
        pack(result, "the result")
    except CannotPack as error:
        return describe_failure(error)
    return result
