"""What a recovery file says, and how: lines of JSON, each led by its checksum. Pure.

A program that is killed while it writes leaves a good file, since what is torn is passed over. Not
in it: the secret.
"""

import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

from dispy.model.credentials import Certificate, KeyPair
from dispy.model.errors import DispyError
from dispy.model.texts import one_line

VERSION = 1  # raised when an older dispy could not read it
_FIRST_BYTES, _LINE_BYTES = 2000, 200  # of a line, as a rule
_LEAD = "dispy recovery"  # of the first line, so that no other file is taken for one


class NoRecoveryFile(DispyError):
    """There is no such file, or it cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """Who it was: what its nodes know it by, and what it proved itself with."""

    identity: str
    name: str  # as people know it: its host and process
    started: float  # seconds since the epoch
    secret: str = ""  # where its secret came from; empty: it had none
    secrets_file: str | None = None  # the path of the file that it was in
    certificate: Certificate | None = None  # paths
    pair: KeyPair | None = None  # made for the process, where a person gave it no certificate


@dataclass(frozen=True, slots=True)
class KnownCluster:
    """One that had jobs on nodes."""

    number: int
    name: str
    directory: str  # where files go that its jobs send
    max_file_size: int = 0  # bytes of one of these; 0: any


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node that had jobs."""

    node_id: str  # of its process, as `proven_identity` says it
    name: str
    host: str
    port: int
    taken: int = 0  # the last of its results' numbers that a recovery has handed out


@dataclass(slots=True)
class Content:
    """What a file says, all lines taken together."""

    program: Program
    clusters: dict[int, KnownCluster] = field(default_factory=dict)
    nodes: dict[str, KnownNode] = field(default_factory=dict)
    damaged: int = 0  # lines that were passed over

    @property
    def size(self) -> int:
        """About how many bytes its lines have."""
        return _FIRST_BYTES + _LINE_BYTES * (len(self.clusters) + len(self.nodes))

    def lines(self) -> bytes:
        """Return it as a file that says the same."""
        first = {"what": _LEAD, "version": VERSION, "program": asdict(self.program)}
        entries: list[Entry] = [*self.clusters.values(), *self.nodes.values()]
        return b"".join([_line(first), *map(self.add, entries)])

    def add(self, entry: "Entry") -> bytes:
        """Take what is new, and return its line."""
        if isinstance(entry, KnownCluster):
            self.clusters[entry.number] = entry
            return _line({"cluster": asdict(entry)})
        if isinstance(entry, KnownNode):
            self.nodes[entry.node_id] = entry
            return _line({"node": asdict(entry)})
        if isinstance(entry, int):
            self.clusters.pop(entry, None)
            return _line({"closed": entry})
        self.nodes.pop(entry, None)
        return _line({"lost": entry})


# Or the number of a cluster that is closed, or the id of a node that is lost.
Entry = KnownCluster | KnownNode | int | str


def _line(table: dict[str, Any]) -> bytes:
    import json  # late: only programs that use nodes of others write one

    text = json.dumps(table, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parse(data: bytes, path: str) -> Content:
    """Return what a file says; raises NoRecoveryFile where that is nothing.

    The last line may be torn, and is passed over then. So is any other that is not whole; these
    are counted.
    """
    first, *others = data.split(b"\n")
    content = _first(first, path)
    for line in others[:-1]:  # what follows the last line's end is torn, or nothing
        table = _table(line)
        if table is None or not _take(content, table):
            content.damaged += 1
    return content


def _first(line: bytes, path: str) -> Content:
    table = _table(line)
    if table is None or table.get("what") != _LEAD:
        raise NoRecoveryFile(f"{path} is no recovery file of dispy, or its first line is damaged")
    if table.get("version") != VERSION:
        version = one_line(str(table.get("version")))
        raise NoRecoveryFile(
            f"{path} was written by another version of dispy (form {version}, this one reads "
            f"{VERSION}): use that version"
        )
    try:
        program = dict(table["program"])
        for name, kind in (("certificate", Certificate), ("pair", KeyPair)):
            if program[name] is not None:
                program[name] = _build(kind, program[name])
        return Content(_build(Program, program))
    except (KeyError, TypeError, ValueError):
        raise NoRecoveryFile(f"{path} does not say whose it is: its first line is wrong") from None


def _table(line: bytes) -> dict[str, Any] | None:
    """Return what one line says; None: it is not whole."""
    import json

    sum_, _, text = line.partition(b" ")
    if sum_ != b"%08x" % zlib.crc32(text):
        return None
    try:
        table = json.loads(text)
    except ValueError:
        return None
    return table if isinstance(table, dict) else None


def _take(content: Content, table: dict[str, Any]) -> bool:
    """Take one line; False where it makes no sense."""
    kinds: dict[str, Any] = {"cluster": KnownCluster, "node": KnownNode}
    try:
        ((what, said),) = table.items()
        if what not in kinds and type(said) is not {"closed": int, "lost": str}[what]:
            return False
        entry: Entry = _build(kinds[what], said) if what in kinds else said
        content.add(entry)
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _build(kind: Any, table: Any) -> Any:
    """Return a record of this kind; raises TypeError for what it cannot be made of."""
    record = kind(**table)
    for name, part in kind.__dataclass_fields__.items():
        value, wanted = getattr(record, name), part.type
        wanted = (int, float) if wanted is float else wanted
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TypeError(name)
    return record
