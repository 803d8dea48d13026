"""What a nursery holds for its workers: a function or a program, ready to be called.

A call's payload is a pickle of (arguments, keywords). A payload that begins with CHUNK is a
pickle of many items, each one call, whose results travel as one list (`JobCluster.map`).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from dispy.protocol.frames import Memory
from dispy.protocol.messages import Payload
from dispy.shipping.payloads import CHUNK, Failure, describe_failure, unpack
from dispy.system.interpreter import is_frozen, own_environment


@dataclass(slots=True)
class Computation:
    """`call` is what each job calls; `names` are the globals it may change, if any."""

    name: str
    call: Callable[..., Any]
    names: dict[str, Any] | None
    is_program: bool = False


def load_function(name: str, packed: Memory, provided: dict[str, Any]) -> Computation:
    """Rebuild a function and give it the `provided` names; raises whatever its code raises."""
    function = unpack(packed)
    names = _globals_of(function)
    if names is not None:
        for key, value in provided.items():
            names.setdefault(key, value)
    return Computation(name, function, names)


def _globals_of(function: Any) -> dict[str, Any] | None:
    while not isinstance(function, FunctionType):
        if isinstance(function, MethodType):
            function = function.__func__
        elif hasattr(function, "func"):  # functools.partial
            function = function.func
        else:
            return None
    return function.__globals__


def load_program(name: str, content: Memory, directory: str) -> Computation:
    """Write a program into `directory` and return what runs it with a job's arguments."""
    path = os.path.join(directory, os.path.basename(name))
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o700)
    command, environment = [path], None
    if path.endswith(".py"):
        command = [sys.executable, *(["worker", "--script"] if is_frozen() else []), path]
        environment = own_environment()

    def run(*arguments: str) -> int:
        # The process inherits descriptors 1 and 2, and with them the capture of output.
        process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, env=environment
        )
        while True:
            # A cancel interrupts the whole group; the program decides how it ends.
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()

    return Computation(name, run, None, is_program=True)


def call_each(function: Callable[..., Any], packed: Payload) -> tuple[list[Any], bool]:
    """Return what `function` gave for each item of a chunk, and whether any of them failed.

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
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code
            results.append(Failure(*describe_failure(error, skip=1)))
            failed = True
    return results, failed
