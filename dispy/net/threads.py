"""Work that may wait for a disk, in a thread of the hub's pool while the loop goes on."""

from collections.abc import Callable
from typing import Any, TypeVar

from gevent import get_hub

Result = TypeVar("Result")


def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Return what the function returns; raise what it raises. Waits in the calling greenlet.

    The pool's own `apply` prints every exception with its traceback before it raises it.
    """
    value, error = get_hub().threadpool.apply(_outcome, (function, arguments))
    if error is not None:
        raise error
    result: Result = value
    return result


def _outcome(
    function: Callable[..., Result], arguments: tuple[Any, ...]
) -> tuple[Result | None, BaseException | None]:
    try:
        return function(*arguments), None
    except BaseException as error:  # for whoever waits, whatever it is
        return None, error
