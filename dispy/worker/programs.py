"""A computation that is a program: any executable or script, each job one run of it."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from dispy.model.errors import DispyError
from dispy.system.interpreter import is_frozen, own_environment
from dispy.system.processes import memory_file
from dispy.worker.computation import Computation
from dispy.worker.limits import job_environment


class CannotStart(DispyError):
    """A program could not be started; the text says why."""


def load_program(
    name: str, content: bytes, directory: str, provided: dict[str, Any], java: str
) -> Computation:
    """Write a program into `directory` and return what runs it with a job's arguments.

    `java` is what runs a `.java` file. The `provided` names are variables of its environment,
    and `directory` leads its PATH.
    """
    path = os.path.join(directory, os.path.basename(name))
    # Beside it first: a program that runs, for another cluster with this `dest_path`, cannot be
    # written to, and a link of that name leads to a file of the user's.
    growing = f"{path}.{os.getpid()}.new"
    with open(growing, "wb") as file:
        file.write(content)
    os.chmod(growing, 0o700)
    os.replace(growing, path)
    command = [path]
    if path.endswith(".py"):
        command = [sys.executable, *(["worker", "--script"] if is_frozen() else []), path]
    elif path.endswith(".java"):
        command = [java, path]
    environment = own_environment() if path.endswith(".py") else dict(os.environ)
    environment |= {name: str(value) for name, value in provided.items()}
    environment["PATH"] = os.pathsep.join([directory, environment.get("PATH", os.defpath)])
    return Computation(name, _runner(command, environment), None, is_program=True)


def _runner(command: list[str], environment: dict[str, str]) -> Callable[..., int]:
    def run(*arguments: str, stdin: bytes | None = None) -> int:
        try:
            # It inherits descriptors 1 and 2, and with them the capture of output.
            with _readable(stdin) as source:
                process = subprocess.Popen(
                    [*command, *arguments], stdin=source, env={**environment, **job_environment}
                )
        except (OSError, ValueError) as error:
            raise CannotStart(_why(command, error)) from None
        return process.wait()

    return run


@contextlib.contextmanager
def _readable(content: bytes | None) -> Iterator[int]:
    """Give a descriptor from which a program reads this, whenever it likes; None: nothing."""
    if content is None:
        yield subprocess.DEVNULL
        return
    with open(memory_file("dispy-stdin"), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _why(command: list[str], error: Exception) -> str:
    """Say in words why a program does not start."""
    path = command[-1]
    if path.endswith(".java") and isinstance(error, FileNotFoundError):
        return f"the program {os.path.basename(path)!r} needs {command[0]!r}, which this node lacks"
    name, number = os.path.basename(path), getattr(error, "errno", None)
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            first = file.readline(1000).strip()
        if not first:
            return f"the program {name!r} could not be started: its file is empty"
        if number == errno.ENOENT and first.startswith(b"#!"):
            return (
                f"the program {name!r} could not be started: this node has no "
                f"{first[2:].decode(errors='replace').strip()!r}, which its first line names"
            )
        if number == errno.ENOEXEC:
            return (
                f"the program {name!r} could not be started: it is neither an executable for "
                f"this machine nor a script whose first line names an interpreter (#!)"
            )
    return f"the program {name!r} could not be started: {error}"
