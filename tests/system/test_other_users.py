"""Whoever else is logged in on this machine uses no node of ours, nor do we use one of theirs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from system.conftest import DEADLINE, Program, RunningNode
from system.other_users import as_user, needs_root, open_to_others, python_for_all

from dispy.system import peers

ANNA, BERT = 51001, 51002  # users who need not exist

USE = """
import sys
import dispy

def whose():
    import os
    return os.getuid()

if __name__ == "__main__":
    nodes = [sys.argv[1]] if len(sys.argv) > 1 else None
    cluster = dispy.JobCluster(whose, nodes=nodes)
    job = cluster.submit()
    why = ""
    while not job.finish.wait(0.05) and not (nodes and "secret" in why):
        why = job.why()
    print("ran as", job.result) if job.finish.is_set() else print(why)
    cluster.close(timeout=0, terminate=True)
"""


class Users:
    """Runs nodes and programs as other users, in a directory that they may look into."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._python, self._environment = python_for_all()
        self._environment |= {"HOME": "/nonexistent", "DISPY_BROADCAST": "0"}
        self._nodes: list[RunningNode] = []
        self._programs: list[Program] = []

    def python(self, user: int) -> str:
        return as_user(self._directory, self._python, user) if user else sys.executable

    def node(self, user: int, *options: str, host: str = "") -> RunningNode:
        """Run a node; its address is one of loopback."""
        files = self._directory / f"files-{len(self._nodes)}"
        files.mkdir()
        os.chown(files, user, user)
        host = host or f"127.5.{os.getpid() % 250}.{len(self._nodes) + 1}"
        self._nodes.append(
            RunningNode(
                files, host, 51348, "--cpus=1", *options, python=self.python(user),
                **self._environment,
            )
        )  # fmt: skip
        return self._nodes[-1]

    def program(self, user: int, *arguments: str, **environment: str) -> str:
        """Return what a program says from beginning to end."""
        path = self._directory / "use.py"
        path.write_text(USE)
        environment = {**self._environment, **environment}
        program = Program(path, *arguments, python=self.python(user), **environment)
        self._programs.append(program)
        assert program.end() == 0, program.output
        return program.output

    def close(self) -> None:
        """End what is left; no node may have been broken."""
        for program in self._programs:
            program.process.kill()
        for node in self._nodes:
            if node.process.poll() is None:
                assert node.end() == 0, node.said
            assert "Traceback" not in node.said, node.said


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with open_to_others() as directory, closing(Users(directory)) as made:
        yield made


@pytest.fixture(scope="module")
def hers(users: Users) -> RunningNode:
    """A node of Anna's, without a secret."""
    return users.node(ANNA)


@needs_root
def test_a_node_of_another_user_is_refused_by_name_and_serves_its_own_user(
    users: Users, hers: RunningNode
) -> None:
    assert f"ran as {ANNA}" in users.program(ANNA, hers.host)
    said = users.program(BERT, hers.host)
    assert "ran as" not in said
    assert f"node at {hers.host}, port 51348 is refused: it belongs to uid {ANNA}, and" in said
    assert f"this program to uid {BERT}" in said
    assert "`dispy secret`" in said


@needs_root
def test_a_node_refuses_programs_of_other_users_whatever_these_trust(users: Users) -> None:
    node = users.node(ANNA)
    said = users.program(BERT, node.host, DISPY_INSECURE="1")
    assert "ran as" not in said
    assert ": this side was started by another user of this machine" in said
    assert node.end() == 0
    assert f"refused 127.0.0.1: it is of another user of this machine (uid {BERT})" in node.said
    assert "connected" not in node.said


@needs_root
def test_root_may_use_the_nodes_of_others_where_it_says_so(users: Users, hers: RunningNode) -> None:
    assert f"refused: it belongs to uid {ANNA}" in users.program(0, hers.host)
    assert f"ran as {ANNA}" in users.program(0, hers.host, DISPY_INSECURE="1")


@needs_root
def test_a_node_that_is_open_to_all_serves_other_users_who_trust_it(users: Users) -> None:
    node = users.node(ANNA, "--insecure")
    assert f"refused: it belongs to uid {ANNA}" in users.program(BERT, node.host)
    assert f"ran as {ANNA}" in users.program(BERT, node.host, DISPY_INSECURE="1")


@needs_root
@pytest.mark.parametrize("owner", [ANNA, 0])
def test_a_program_starts_its_own_node_where_the_only_one_is_of_another_user(
    users: Users, owner: int
) -> None:
    node = users.node(owner, host="127.0.0.1")
    said = users.program(BERT)
    assert "started a local node" in said
    assert f"ran as {BERT}" in said
    assert node.end() == 0


TWO_CLUSTERS = """
import sys
import dispy

def whose():
    import os
    return os.getuid()

if __name__ == "__main__":
    trusting = dispy.JobCluster(whose, nodes=sys.argv[1:], insecure=True)
    print("trusting", trusting.submit()())
    careful = dispy.JobCluster(whose, nodes=[*sys.argv[1:], "127.*"])
    print("careful", careful.submit()())
    dispy.JobCluster.close(careful), trusting.close()
"""


@needs_root
def test_what_one_cluster_trusts_another_does_not(hers: RunningNode, run_program) -> None:
    program = run_program(TWO_CLUSTERS, hers.host, DISPY_BROADCAST="0", DISPY_SECRET_FILE="none")
    assert program.end() == 0, program.output
    assert f"trusting {ANNA}\n" in program.output
    assert "careful 0\n" in program.output


SAY_AND_GO = """
import socket, struct, sys
from dispy.protocol.frames import encode_head
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
hello = encode_head(Kind.HELLO, Hello("client", "0" * 32, "quick").body())
for reset in (False, True) * 20:
    sock = socket.create_connection((sys.argv[1], 51348))
    sock.send(hello)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
"""


@needs_root
def test_who_says_hello_and_is_gone_before_he_is_looked_at_gets_nowhere(users: Users) -> None:
    node = users.node(0)  # the kernel calls a connection that nobody holds one of root
    environment = {**os.environ, **users._environment}
    command = [users.python(BERT), "-c", SAY_AND_GO, node.host]
    subprocess.run(command, check=True, env=environment, cwd="/", timeout=DEADLINE)
    assert "ran as 0" in users.program(0, node.host)
    assert node.end() == 0
    assert node.said.count(" connected") == 1, node.said


@needs_root
def test_doctor_says_to_whom_a_node_belongs(users: Users, hers: RunningNode) -> None:
    command = [users.python(BERT), "-m", "dispy", "doctor", "--json", hers.host]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd="/",
        env={**os.environ, **users._environment},
    )  # fmt: skip
    checks = [c for c in json.loads(done.stdout) if f"belongs to uid {ANNA}" in c["finding"]]
    assert [(c["verdict"], c["subject"]) for c in checks] == [
        ("warning", "TCP port 51348 (node)"), ("problem", f"host {hers.host}")
    ], done.stdout  # fmt: skip
    assert "both users' ~/.config/dispy/secret" in checks[1]["advice"]


# -- what the system says


CONNECT = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not peers.CAN_TELL, reason="this system does not tell users")
@pytest.mark.parametrize("way", ["netlink", "/proc"])
@pytest.mark.parametrize(
    ("family", "listens", "dialled"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_the_user_of_the_other_end_is_known_while_somebody_holds_it(
    family: int, listens: str, dialled: str, way: str, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if way == "/proc":
        monkeypatch.setattr(peers, "_ask_kernel", _forbidden)
    python, user = sys.executable, os.geteuid()
    if user == 0:
        python, user = request.getfixturevalue("users").python(ANNA), ANNA
    with ExitStack() as held:
        everywhere = listens == "::"
        server = held.enter_context(
            socket.create_server((listens, 0), family=family, dualstack_ipv6=everywhere)
        )
        port = server.getsockname()[1]
        other = held.enter_context(
            subprocess.Popen(
                [python, "-c", CONNECT, dialled, str(port)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
            )
        )  # fmt: skip
        held.callback(other.kill)
        assert other.stdout is not None
        assert other.stdout.readline() == b"connected\n"
        accepted = held.enter_context(server.accept()[0])
        assert peers.user_of(accepted) == user
        assert not peers.is_closed(accepted)
        other.communicate(b"")
        assert accepted.recv(1) == b""
        assert peers.user_of(accepted) is None
        assert peers.is_closed(accepted)


@pytest.mark.skipif(not peers.CAN_TELL, reason="this system does not tell users")
def test_who_has_not_accepted_yet_is_not_known_and_is_waited_for() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sock,
        ExitStack() as accepted,
    ):
        assert peers.user_of(sock) is None
        pauses: list[float] = []

        def accept(pause: float) -> None:
            pauses.append(pause)
            if len(pauses) == 3:
                accepted.enter_context(server.accept()[0])

        assert peers.wait_for_user(sock, DEADLINE, accept) == os.geteuid()
        assert len(pauses) == 3


def _forbidden(*_: object) -> None:
    raise PermissionError("as in some containers")


def test_the_number_of_all_unknown_users_is_no_friend(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = os.geteuid()
    monkeypatch.setattr(peers, "_unknown_user", lambda: ours)
    knows: Callable[[], bool]
    for knows in (lambda: True, lambda: False):
        monkeypatch.setattr(peers, "_knows_all_users", knows)
        assert peers.is_friend(ours) == knows()
