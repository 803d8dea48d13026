"""What a shared secret costs: `dispy bench --secret`.

Two nodes on loopback, one without a secret and one with a secret that is thrown away afterwards,
a program for each, and two processes with pyOpenSSL between them and nothing else. They are
measured in turns, so that whatever else the machine does meets all of them.
"""

import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

from dispy.cli.companions import ALONE, PROGRAM, Companion
from dispy.cli.figures import Measured, Probes, Row, measure, wanted_keys
from dispy.cli.measurements import NotMeasured
from dispy.cli.progress import Progress
from dispy.model.credentials import new_secret
from dispy.model.errors import DispyError
from dispy.model.settings import SETTINGS
from dispy.system.interpreter import is_frozen, own_command, own_environment
from dispy.system.processes import processors

HOST = "127.0.0.1"
MIB = 1024 * 1024
TURNS = 2  # of each contender in one round of bulk, which takes a fraction of a second
AT_ONCE = 2  # measurements in a turn: the second finds memory that the kernel has given before
END_SECONDS = 10.0  # that a node may take to end
VARIABLES = {setting.variable for setting in SETTINGS.values()}  # they may configure other nodes
_SERVES = re.compile(r" serves .* port (\d+)$")


class Node:
    """A node of its own on a free port, and the environment in which programs may use it."""

    def __init__(self, name: str, directory: Path, secret_file: str) -> None:
        """secret_file: a path, or "none"."""
        said = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        directory.mkdir()
        self.environment = said | {
            "DISPY_SECRET_FILE": secret_file,
            "DISPY_BROADCAST": "0",
            "XDG_CONFIG_HOME": str(directory),  # what is configured for other nodes is not for it
        }
        self.name = name
        self._process = subprocess.Popen(
            own_command(
                "node", f"--name={name}", f"--host={HOST}", "--port=0",
                f"--dest_path_prefix={directory / 'files'}",
            ),
            stderr=subprocess.PIPE, text=True, env=own_environment(self.environment),
        )  # fmt: skip
        self.port = self._hear_port()

    def _hear_port(self) -> int:
        stderr, line = self._process.stderr, ""
        assert stderr is not None
        for line in stderr:
            if found := _SERVES.search(line):
                # A pipe that nobody reads would hold the node up once it is full.
                self._reading = Thread(target=deque, args=(stderr, 0))
                self._reading.start()
                return int(found[1])
        self._process.wait()
        raise DispyError(f"the node to measure did not start: {line.strip()}")

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *how: Any) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        finally:
            self._process.kill()
            self._reading.join()


class Protection:
    """The processes that are measured; a context manager."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.nodes: list[Node] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Protection":
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dispy-")))
            secret = root / "secret"
            secret.touch(mode=0o600)
            secret.write_text(new_secret())
            self.plain = self._program(stack, Node("without-secret", root / "plain", "none"))
            self.secret = self._program(stack, Node("with-secret", root / "own", str(secret)))
            self.alone = stack.enter_context(Companion(ALONE, [], os.environ))
            self._stack = stack.pop_all()
        return self

    def _program(self, stack: ExitStack, node: Node) -> Companion:
        stack.enter_context(node)
        self.nodes.append(node)
        return stack.enter_context(Companion(PROGRAM, [HOST, str(node.port)], node.environment))

    def __exit__(self, *how: Any) -> None:
        self._stack.__exit__(*how)


# -- the probes: each measures one round of its rows


def _jobs(protection: Protection) -> tuple[float, ...]:
    count = 5_000 if protection.quick else 100_000
    plain = protection.plain.ask("jobs", count)
    secret = protection.secret.ask("jobs", count)
    return plain, secret, secret / plain


def _bulk(protection: Protection) -> tuple[float, ...]:
    size = (8 if protection.quick else 64) * MIB
    contenders = protection.plain, protection.alone, protection.secret
    turns = [
        [max(one.ask("bulk", size) / 1e6 for _ in range(AT_ONCE)) for one in contenders]
        for _ in range(TURNS)
    ]
    plain, alone, secret = map(max, zip(*turns, strict=True))
    return plain, alone, secret, secret / alone


def _link(protection: Protection) -> tuple[float, ...]:
    count = 5 if protection.quick else 50
    return protection.plain.ask("link", count) * 1e3, protection.secret.ask("link", count) * 1e3


PROBES: Probes[Protection] = [
    (
        (
            Row("jobs", "no-op jobs, without secret", "jobs/s", None, True),
            Row("jobs-secret", "with a secret", "jobs/s", None, True),
            Row("jobs-ratio", "parts of that without", "", 0.85, True, 3),
        ),
        _jobs,
    ),
    (
        (
            Row("bulk", "64 MiB and back, without", "MB/s", None, True),
            Row("bulk-openssl", "pyOpenSSL alone", "MB/s", None, True),
            Row("bulk-secret", "with a secret", "MB/s", None, True),
            Row("bulk-ratio", "parts of pyOpenSSL", "", 0.80, True, 3),
        ),
        _bulk,
    ),
    (
        (
            Row("link", "new link, without secret", "ms", None, False, 2),
            Row("link-secret", "with a secret", "ms", 10, False, 2),
        ),
        _link,
    ),
]


def measure_protection(
    only: str | None, rounds: int, quick: bool, progress: Progress
) -> tuple[Sequence[Measured], list[dict[str, Any]]]:
    """Return all rows, and the nodes that they are of; raises DispyError."""
    wanted = wanted_keys(only, PROBES)
    if is_frozen():
        raise NotMeasured("--secret needs a Python to start, which this executable is not")
    with Protection(quick) as protection:
        measured = list(measure(PROBES, protection, wanted, rounds, progress))
        nodes = [
            {"name": node.name, "ip_addr": HOST, "cpus": processors()} for node in protection.nodes
        ]
    return measured, nodes
