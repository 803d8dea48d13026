"""Imports point down only; the lower floors know neither gevent nor sockets; only `cli` prints."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispy

ROOT = Path(dispy.__file__).parent
FLOORS = {
    "model": 0,  # of the ground floor, and below its other rooms: plain data and errors for all
    "protocol": 1, "system": 1,
    "scheduling": 2, "execution": 2, "shipping": 2,
    "worker": 3, "net": 3,
    "node": 4, "scheduler": 4, "relay": 4,
    "client": 5,
    "httpd": 6,
    "cli": 7,
}  # fmt: skip
PURE = {room for room, floor in FLOORS.items() if floor <= 2}
NETWORKING = {"gevent", "socket", "ssl", "select", "selectors", "asyncio", "socketserver"}
# The package's own module stands on top of all: its version is for everybody, its public names
# for the top floor alone, whose `demo` and `bench` do what a user's program does.
TOP_NAMES = {"__version__"}
TOP_FLOOR = max(FLOORS.values())
# The table of a cluster, as programs for dispy 4 expect it; and messages that nobody else shows.
MAY_PRINT = {("client", "report.py"), ("client", "speaking.py")}
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else None


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each imported module with its line, also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module == "dispy":
                for alias in node.names:
                    yield f"dispy.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def faults(source: str, room: str) -> list[str]:
    """Return what is wrong with a module's imports, line by line."""
    found = []
    for module, line in imports(ast.parse(source)):
        package = module.split(".")[0]
        if package == "dispy":
            target = room_of(module)
            if target is None:
                if FLOORS.get(room) != TOP_FLOOR and module.split(".")[-1] not in TOP_NAMES:
                    found.append(f"{line}: {module} stands on top of all rooms")
            elif target != room and FLOORS[target] >= FLOORS[room]:
                found.append(f"{line}: {room} is not above {target}")
        elif room in PURE and package in NETWORKING:
            if not (room == "system" and package == "socket"):
                found.append(f"{line}: {room} knows nothing of {package}")
        elif room == "worker" and package == "gevent":
            found.append(f"{line}: a worker runs user code, without gevent")
    return found


def prints(source: str) -> list[int]:
    """Return the lines that print."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if len(parts) > 1:
        assert parts[0] in FLOORS, f"{parts[0]} is not a room of the house"
        assert faults(path.read_text(), parts[0]) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_cli_prints(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if parts[0] != "cli" and parts not in MAY_PRINT:
        assert prints(path.read_text()) == []


def test_the_floors_are_really_looked_at() -> None:
    assert faults("from dispy.net.link import Link", "scheduling")
    assert faults("import dispy.scheduling.core", "execution")
    assert faults("def f():\n    import gevent.event", "shipping")
    assert faults("from dispy import JobCluster", "protocol")
    assert not faults("from dispy import __version__", "protocol")
    assert not faults("import socket", "system")
    assert prints("print(1)")
