"""The names that exist inside jobs, to be imported, so that editors and linters know them.

Jobs may use them without this import, as in dispy 4::

    from dispy.job import dispy_job_path, dispy_provisional_result

    def compute(n):
        dispy_provisional_result(n / 2)
        return open(f"{dispy_job_path}/table").read()

A program may import them at its top: what they are is found out in the job. Outside of a job
calling one raises DispyError.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispy.model.errors import DispyError
from dispy.worker.inside import NAMES

__all__ = [
    "dispy_job_path", "dispy_node_ip_addr", "dispy_node_name", "dispy_provisional_result",
    "dispy_send_file", "dispynode_logger", "dispynode_shutdown",
]  # fmt: skip

if TYPE_CHECKING:
    import logging

    dispy_node_name: str  # the node's name
    dispy_node_ip_addr: str  # the address at which the client reaches it
    dispy_job_path: str  # the computation's directory there, in which each job begins
    dispynode_logger: logging.Logger  # writes to the node's own log


def dispy_provisional_result(result: Any, relay: bool = False, timeout: float = 10) -> int:
    """Send a value before the job's end; 0, or -1 where that failed. The job goes on.

    `relay` and `timeout` are dispy 4's; they have no effect here.
    """
    answer: int = _inside("dispy_provisional_result")(result, relay, timeout)
    return answer


def dispy_send_file(path: str | Path, relay: bool = False, timeout: float = 10) -> int:
    """Send a file to the directory of the client's program; 0, or -1 where that failed.

    A path below the job's directory keeps its relative directory. `timeout`: seconds without
    progress after which it is given up. `relay` is dispy 4's and has no effect here.
    """
    answer: int = _inside("dispy_send_file")(path, relay, timeout)
    return answer


def dispynode_shutdown() -> None:
    """In a cleanup function, on a node that allows it (`--client_shutdown`): end the node."""
    _inside("dispynode_shutdown")()


class _Later:
    """Stands for a value that only a job has; it is that value when it comes there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return _inside, (self._name,)

    def __repr__(self) -> str:
        return f"<{self._name}, which only jobs have>"

    __str__ = __repr__


def _inside(name: str) -> Any:
    try:
        return NAMES[name]
    except KeyError:
        raise DispyError(f"{name} exists only inside of a job") from None


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dispy.job' has no attribute {name!r}")
    return NAMES[name] if name in NAMES else _Later(name)
