"""What may be said of a single job at its `submit`: keyword arguments that begin with `dispy_job_`.

They do not reach the computation; its node and its worker read them.
"""

from collections.abc import Callable
from typing import Any

from dispy.client.depends import check_files
from dispy.client.limits import OF_JOB, check_of_job
from dispy.model.errors import DispyError
from dispy.model.precedence import PRIORITY_MOST
from dispy.model.settings import SETTINGS

PREFIX = "dispy_job_"
CPUS_MOST = 4096  # of a node, as of its --cpus


def _check_stdin(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise DispyError(f"dispy_job_stdin is the text or bytes that a program reads, not {value!r}")


def check_cpus(value: Any, name: str = "dispy_job_cpus") -> int:
    """Return how many processors a job needs; raises DispyError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= CPUS_MOST:
        raise DispyError(f"{name} is a number of processors, 1 to {CPUS_MOST}, not {value!r}")
    return value


def check_priority(value: Any, name: str) -> int:
    """Return a priority, of a job or a cluster; raises DispyError."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or not -PRIORITY_MOST <= value <= PRIORITY_MOST:
        raise DispyError(
            f"{name} is a whole number from -{PRIORITY_MOST} to {PRIORITY_MOST}, not {value!r}"
        )
    return int(value)


# Name behind the prefix -> what checks a value, and returns it as it travels (msgpack).
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "cpus": check_cpus,  # of its node, where that many are free for it
    # Those with more go before others of their cluster, which have 0.
    "priority": lambda value: check_priority(value, PREFIX + "priority"),
    "depends": lambda value: check_files(value, PREFIX + "depends"),
    "retries": lambda value: SETTINGS["client.retries"].check(value, PREFIX + "retries"),
    "stdin": _check_stdin,  # goes to a program with its arguments
    **{name: check_of_job(name) for name in OF_JOB},
}


def take_options(keywords: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keyword arguments of the computation, and the options of the job.

    Raises DispyError for an option that does not exist, or a value that cannot be one.
    """
    own = {name: value for name, value in keywords.items() if not name.startswith(PREFIX)}
    options = {}
    for name in keywords.keys() - own.keys():
        check = OPTIONS.get(name.removeprefix(PREFIX))
        if check is None:
            known = ", ".join(PREFIX + option for option in OPTIONS) or "none"
            raise DispyError(f"{name} is no option of a job; there are: {known}")
        options[name.removeprefix(PREFIX)] = check(keywords[name])
    return own, options
