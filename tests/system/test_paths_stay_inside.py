"""Whatever names peers send, and whatever jobs link to, files stay in their directories."""

import os
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Program, RunningNode
from system.hostile import SECRET, Attack, FalseNode, Honest, Peer, secret_file

from dispy import JobCluster
from dispy.protocol.frames import encode_head
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.shipping.contents import digest_of
from dispy.shipping.files import LINK

PLACE = f"127.6.{os.getpid() % 250}"
CONTENT = b"hostile"
NEVER = bytes(32)  # the digest of a content that is never sent
DIGEST = digest_of(CONTENT)
Open = Callable[..., JobCluster]

NAMES: dict[str, object] = {
    "up": "..",
    "up and down": "../x",
    "up from below": "a/../../x",
    "up at the end": "a/..",
    "absolute": "/tmp/dispy-hostile-x",
    "absolute twice": "//tmp/dispy-hostile-x",
    "nothing": "",
    "here": ".",
    "here and down": "./x",
    "nothing between": "a//x",
    "nothing at the end": "a/",
    "a zero": "a\0b",
    "long": "x" * 300,
    "very long": "x/" * 4000 + "x",
    "10,000 parts": "/".join("x" * 10_000),
    "no text": b"../x",
    "a number": 7,
    "a list": ["x"],
}
# Names like any other on this system, though they mean something on others.
HARMLESS = ["CON", "C:x", "a\\..\\..\\x", "..x", "...", "~", "$HOME", "-rf", "a b\n"]


def state(directory: Path, besides: str) -> dict[str, object]:
    """Return what lies there, but for what is in a directory of this name."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not name.startswith(besides) and not name.startswith(("honest", "secret")):
            found[name] = path.lstat().st_mode, path.is_file() and path.read_bytes()
    return found


# -- what jobs link to


def test_what_jobs_exchange_for_links_leads_the_node_nowhere(
    start_node: Callable[..., RunningNode], open_cluster: Open, tmp_path: Path
) -> None:
    """A job of one computation exchanges the directory of another one for a link."""
    node_directory, outside = tmp_path / "node", tmp_path / "outside"
    node_directory.mkdir(), (outside / "sub").mkdir(parents=True)
    for place in ("data", "sub/data"):
        (outside / place).write_text("precious")
    before = state(outside, "?")
    data = tmp_path / "data"
    data.write_text("for the job")

    def where() -> str:
        return os.getcwd()

    def exchange(place: str, target: str) -> None:
        os.rename(place, place + ".away")
        os.symlink(target, place)

    node = start_node(directory=node_directory)
    own = {"nodes": [node.host], "local_node": False}
    victim, named = open_cluster(where, **own), open_cluster(where, dest_path="sub", **own)
    attacker = open_cluster(exchange, **own)
    for cluster in (victim, named):
        place = cluster.submit().get(timeout=DEADLINE)
        attacker.submit(place, str(outside)).get(timeout=DEADLINE)
        refused = cluster.submit(dispy_job_depends=[str(data)])
        assert refused.finish.wait(timeout=DEADLINE)
        assert "might lead out of the directory" in refused.exception
        assert cluster.send_file(str(data), node.host) != 0
        cluster.close()
    store = str(next(node_directory.glob("dispy-node-*/store")))
    attacker.submit(store, str(outside)).get(timeout=DEADLINE)
    again = open_cluster(where, depends=[str(data)], **own)
    assert again.submit().get(timeout=DEADLINE)
    for cluster in (again, attacker):
        cluster.close()
    assert node.end() == 0, node.said
    assert state(outside, "?") == before


# -- what peers name


class Case:
    """A node below a directory in which nothing else may change."""

    def __init__(self, directory: Path, attack: Attack) -> None:
        self.directory, self.attack = directory, attack
        self.before = self.state()

    def state(self) -> dict[str, object]:
        return state(self.directory, "dispy-node")

    def opened(self) -> Peer:
        """Return a client with a computation whose jobs only wait: its file never comes."""
        peer = self.attack.welcome(identity=os.urandom(4).hex())
        self.open(peer, 1, files=[entry("never", NEVER)])
        return peer

    def open(self, peer: Peer, number: int, name: str = "n", **settings: Any) -> None:
        peer.tell(Kind.OPEN, [number, name, {"program": True, **settings}], [b"program"])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """An honest program uses the node all the while; at the end nothing outside has changed."""
    directory = tmp_path_factory.mktemp("hostile")
    (directory / "x").write_text("precious")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    attack = Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=2", secret))
    with closing(attack), closing(Honest(directory, attack.host)) as program:
        program.wait_for("9\n")
        made = Case(directory, attack)
        yield made
        program.end()
        assert made.state() == made.before
        assert not Path("/tmp/dispy-hostile-x").exists()


def entry(path: object, digest: bytes = DIGEST, mode: int = 0o644) -> list[object]:
    return [path, digest, len(CONTENT) if mode != LINK else 0, mode, 10**18]


def answer(peer: Peer, kind: Kind, says: Callable[[list[Any]], bool] = lambda body: True) -> Any:
    """Return the body of the next such message; what the node asks for is sent meanwhile."""
    while (frame := peer.frame()) is not None:
        if frame.kind == Kind.FETCH and frame.body[0] != NEVER:
            key, offset, length = frame.body
            peer.tell(Kind.PIECE, [key, offset, None], [CONTENT[offset : offset + length]])
        elif frame.kind == kind and says(frame.body):
            return frame.body
    raise AssertionError(f"the link ended before {kind.name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_node_refuses_names_that_lead_out_in_words(case: Case, name: str) -> None:
    given, peer = NAMES[name], case.opened()
    directory = [given, b"", 0, 0o755, 10**18]
    for number, files in enumerate(([entry(given)], [directory]), start=10):
        case.open(peer, number, files=files)
        why = answer(peer, Kind.READY, lambda body, number=number: body[0] == number)[1]  # type: ignore[misc]
        assert "on node" in why, why
        peer.tell(Kind.PLACE, [1, number, {"files": files}])
        assert "on node" in answer(peer, Kind.PLACED)[2]
        peer.tell(Kind.RUN, [1, [number], [b"x"], [[0, {"files": files}]]])
        results = answer(peer, Kind.RESULTS)
        assert results[2] == [number]
        assert "on node" in results[6][0][1]["exception"]
    case.open(peer, 20, dest_path=given)
    why = answer(peer, Kind.READY, lambda body: body[0] == 20)[1]
    assert "dest_path" in why
    assert "is refused" in why
    for target in (given, b"../x", b"/x"):
        as_bytes = target if isinstance(target, bytes) else str(target).encode()
        peer.tell(Kind.PLACE, [1, 5, {"files": [entry("y", as_bytes, LINK)]}])
        assert "is another name for nothing" in answer(peer, Kind.PLACED)[2]
    peer.close()


@pytest.mark.parametrize("name", ["..", "../x", "/tmp/dispy-hostile-x", "", "a\0b", "x" * 300])
def test_a_program_s_own_name_leads_nowhere(case: Case, name: str) -> None:
    peer = case.opened()
    case.open(peer, 2, name=name)
    answer(peer, Kind.READY, lambda body: body[0] == 2)
    peer.tell(Kind.CLOSE, [2])
    answer(peer, Kind.CLOSED)
    peer.close()


def test_names_that_mean_nothing_here_are_files_inside(case: Case) -> None:
    peer = case.opened()
    case.open(peer, 3, dest_path="harmless", files=[entry("x")])
    answer(peer, Kind.READY, lambda body: body[0] == 3)
    case.open(peer, 4, dest_path="harmless", cleanup=False, files=[entry(n) for n in HARMLESS])
    answer(peer, Kind.READY, lambda body: body[0] == 4)
    (root,) = case.directory.glob("dispy-node-*/clients/*/harmless")
    for name in HARMLESS:
        assert (root / name).read_bytes() == CONTENT
    peer.close()


@pytest.mark.parametrize("identity", ["../../../x", "/x", "", "x" * 32, "a" * 31 + "\n", ".." * 16])
def test_an_identity_is_no_path(case: Case, identity: str) -> None:
    peer = case.attack.proven()
    peer.send(encode_head(Kind.HELLO, Hello("client", identity, "n").body()))
    assert "'identity' of HELLO" in peer.last_words()


@pytest.mark.parametrize(
    "env", [{"a\0b": "x"}, {"": "x"}, {"a=b": "x"}, {"a": "x\0y"}, {"a": ["x"]}]
)
def test_names_of_variables_that_are_none_are_refused(case: Case, env: dict[str, Any]) -> None:
    peer = case.opened()
    case.open(peer, 6, limits={"env": env})
    assert "on node" in answer(peer, Kind.READY, lambda body: body[0] == 6)[1]
    peer.tell(Kind.RUN, [1, [7], [b"x"], [[0, {"env": env}]]])
    assert "options of a job" in peer.last_words()


# -- a program, and a node that sends it files

PROGRAM = """
import os, sys
import dispy

def job():
    pass

if __name__ == "__main__":
    cluster = dispy.JobCluster(job, nodes=[sys.argv[1]], local_node=False)
    print(cluster.submit()(), flush=True)
    cluster.close()
"""


def test_a_program_takes_no_file_that_a_node_would_put_elsewhere(
    tmp_path: Path, nothing_left: None
) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    (home / "real").mkdir(parents=True), outside.mkdir()
    for precious in (outside / "x", tmp_path / "x", home / "file"):
        precious.write_text("precious")
    (home / "link").symlink_to(outside)
    (home / "inner").symlink_to(home / "real")
    (home / "to file").symlink_to(outside / "x")
    names = [str(n).encode() for n in NAMES.values() if isinstance(n, str)]
    refused = {
        n: n for n in names if n not in (b"./x", b"a//x", b"a/", b"x" * 300)
    }  # the others mean a file inside, or are refused by the system
    hostile = [*refused, b"x" * 300, str(outside / "x").encode(), b"link/x", b"inner/x", b"file/x"]
    hostile += [b"link", b"real", b"\xff/../../x", b"\\\\host\\x", b"\\x"]
    said: queue.Queue[tuple[bytes, str | None]] = queue.Queue()
    done = threading.Event()

    def offer(client: Peer, opened: int, job: int, name: object) -> str | None:
        table = {"name": name, "size": len(CONTENT), "mode": 0o4777, "modified": 10**18}
        client.tell(Kind.OFFER, [opened, job, os.urandom(16), table])
        while (frame := client.frame()) is not None:
            if frame.kind == Kind.FETCH:
                client.tell(Kind.PIECE, [*frame.body[:2], None], [CONTENT])
            elif frame.kind == Kind.TOOK:
                why: str | None = frame.body[1]
                return why
        raise AssertionError("the program has ended the link")

    def serves(client: Peer) -> None:
        client.tell(Kind.HELD, [[], []])
        client.tell(Kind.SHARE, [2, 1])
        opened = client.until(Kind.OPEN).body[0]
        client.tell(Kind.READY, [opened, None, {}])
        _, (job, *_), *_ = client.until(Kind.RUN).body
        for name in [*hostile, "no bytes", b"fine", b"to file", b"new/directory/fine"]:
            said.put((name, offer(client, opened, job, name)))  # type: ignore[arg-type]
        done.set()
        result = pickle.dumps("done")
        client.tell(Kind.RESULTS, [1, opened, [job], [0.0], [0.0], [result], []])
        while client.frame() is not None:
            pass

    (home / "program.py").write_text(PROGRAM)
    before = state(tmp_path, "home"), state(home, "?")
    file = str(secret_file(tmp_path, SECRET))
    with ExitStack() as stack:
        false = stack.enter_context(closing(FalseNode(f"{PLACE}.20", serves)))
        program = Program(home / "program.py", false.host, DISPY_SECRET_FILE=file)
        stack.callback(program.process.communicate)
        stack.callback(program.process.kill)
        assert done.wait(DEADLINE), program.output
        assert program.end() == 0, program.output
    taken = dict(said.get() for _ in range(said.qsize()))
    assert {name for name, why in taken.items() if why is None} == {
        b"fine", b"to file", b"new/directory/fine",
    }  # fmt: skip
    assert len(taken) == len({*hostile}) + 4
    assert "Traceback" not in program.output
    after = state(home, "?")
    for name in ("fine", "to file", "new/directory/fine"):
        mode, content = after.pop(name)  # type: ignore[misc]
        assert (mode & 0o7777, content) == (0o777, CONTENT)
        assert not (home / name).is_symlink()
    del after["new"], after["new/directory"], before[1]["to file"]
    assert (state(tmp_path, "home"), after) == before
