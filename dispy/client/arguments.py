"""What the arguments of `JobCluster` mean, in the words of each generation of dispy.

A later name wins over an earlier one. What this version cannot do yet is refused where going on
without it would give wrong results or less protection than was asked for, and passed over, with
a line for those who debug, where it is only about how dispy 4 reached its nodes.
"""

import logging
import os
from typing import Any

from dispy.model import overrides
from dispy.model.errors import DispyError
from dispy.model.ports import SCHEDULER_PORT
from dispy.model.precedence import WEIGHT_LEAST, WEIGHT_MOST

logger = logging.getLogger("dispy.client")

_SECONDS_MOST = 1000  # of an interval, as in dispy 4


def newer(name: str, value: Any, old_name: str, old_value: Any) -> Any:
    """Return the argument under its newer name, or under its old one if only that was given."""
    if value is None:
        return old_value
    if old_value is not None:
        logger.warning("both %s and %s were given; %s is used", name, old_name, name)
    return value


def choose_port(node_port: Any, dispy_port: Any) -> Any:
    """Return the port of the nodes; `dispy_port` is the base from which dispy 4.11+ counts.

    Where neither is given, what the program has written into `dispy.config` counts.
    """
    if dispy_port is None:
        return overrides.node_port() if node_port is None else node_port
    return newer("node_port", node_port, "dispy_port", _base(dispy_port) + 1)


def choose_scheduler_port(scheduler_port: Any, dispy_port: Any) -> int:
    """Return the port of a shared scheduler, likewise: two above the base."""
    if dispy_port is not None:
        scheduler_port = newer(
            "scheduler_port", scheduler_port, "dispy_port", _base(dispy_port) + 2
        )
    if scheduler_port is None:
        scheduler_port = overrides.scheduler_port() or SCHEDULER_PORT
    if type(scheduler_port) is not int or not 0 < scheduler_port < 65536:
        raise DispyError(f"scheduler_port is a number from 1 to 65535, not {scheduler_port!r}")
    return scheduler_port


def _base(dispy_port: Any) -> int:
    if type(dispy_port) is not int:
        raise DispyError(f"dispy_port is a whole number, not {dispy_port!r}")
    return dispy_port


def choose_file_size(max_file_size: Any) -> Any:
    """Return the limit of files that jobs send, `dispy.config.MaxFileSize` if none was given."""
    return (overrides.MaxFileSize or None) if max_file_size is None else max_file_size


def choose_recover_file(recover_file: Any) -> Any:
    """Return where the recovery file is to be, as the setting has it; False means that none is."""
    if isinstance(recover_file, os.PathLike):
        return os.fspath(recover_file)
    return "none" if recover_file is False else (recover_file or None)


def check_interval(
    seconds: Any, name: str, low: float, most: float = _SECONDS_MOST
) -> float | None:
    """Return an interval in seconds, or None if none was given."""
    if seconds is None:
        return None
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not low <= seconds <= most:
        raise DispyError(f"{name} is a number of seconds from {low:g} to {most:g}, not {seconds!r}")
    return float(seconds)


def check_callback(callback: Any, name: str, count: int) -> Any:
    """Return a callback that can be called with `count` arguments, or None."""
    if callback is None:
        return None
    if not callable(callback):
        raise DispyError(f"{name} is a function of {count} arguments, not {callback!r}")
    try:
        # 4 ms that most programs need not wait for.
        import inspect

        inspect.signature(callback).bind(*range(count))
    except TypeError:
        raise DispyError(
            f"{name}: {getattr(callback, '__name__', callback)!r} cannot be called with {count} "
            f"argument{'s' if count > 1 else ''}, as it will be"
        ) from None
    except ValueError:
        pass  # written in C, without a signature
    return callback


def check_flag(value: Any, name: str) -> bool:
    """Return a yes or no; anything else is no, with a warning, as in dispy 4."""
    if not isinstance(value, bool):
        logger.warning("%s is True or False, not %r; taken as False", name, value)
        return False
    return value


def check_weight(weight: Any) -> float:
    """Return the part of a cluster, as a multiple of others'; raises DispyError."""
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not WEIGHT_LEAST <= weight <= WEIGHT_MOST:  # nor is NaN
        raise DispyError(
            f"weight is a number from {WEIGHT_LEAST:g} to {WEIGHT_MOST:g}, not {weight!r}"
        )
    return float(weight)


def pass_over(**arguments: Any) -> None:
    """Tell those who debug which arguments have no effect here."""
    given = [name for name, value in arguments.items() if value]
    if given:
        logger.debug("without effect in this version: %s", ", ".join(given))
