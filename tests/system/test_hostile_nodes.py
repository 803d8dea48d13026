"""A node that has the secret may speak of its own jobs, and of nothing that is another node's."""

import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from system.conftest import DEADLINE, Gate, Program, RunningNode
from system.hostile import SECRET, Attack, FalseNode, Peer, secret_file

from dispy.protocol.messages import Kind
from dispy.shipping.contents import digest_of

PLACE = f"127.5.{os.getpid() % 250}"
WRONG = pickle.dumps("wrong")
FILE = b"for the honest node alone"

PROGRAM = """
import queue, sys
import dispy

def hold(gate, value):
    import os
    descriptor = os.open(gate, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)
    return value

def read(gate):
    return hold(gate, open("secret.txt").read())

if __name__ == "__main__":
    gate, honest, false = sys.argv[1:]
    ready = queue.Queue()

    def told(status, node, job):
        if status == dispy.DispyNode.Initialized:
            ready.put(node.ip_addr)

    def shown(job):
        if job.status not in (job.Finished, job.Cancelled):
            print("a callback for", job.status, job.result, flush=True)

    first = dispy.JobCluster(
        hold, nodes=[honest, false], local_node=False, cluster_status=told, job_status=shown,
        stream=True,
    )
    assert {ready.get(), ready.get()} == {honest, false}
    second = dispy.JobCluster(
        read, nodes=[honest], local_node=False, depends=["secret.txt"],
        cluster_status=told, job_status=shown, stream=True,
    )
    assert ready.get() == honest
    jobs = [first.submit_node(honest, gate, "right"), second.submit(gate)]
    jobs.append(first.submit_node(false, gate, "right"))
    print([job() for job in jobs], flush=True)
    assert ready.empty(), ready.get()
    first.close()
    second.close()
"""


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """An honest node with the secret."""
    directory = tmp_path_factory.mktemp("honest")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    attack = Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=2", secret))
    yield attack
    attack.close()


def lies(node: Peer, mine: int, own: list[int]) -> None:
    """Say everything of every job, computation and content that is not its own."""
    numbers = [number for number in range(20) if number not in own]
    for turn, cluster in enumerate(range(4)):
        times = [0.0] * len(numbers)
        results = [WRONG] * len(numbers)
        node.tell(Kind.RESULTS, [100 * turn + 1, cluster, numbers, times, times, results, []])
        node.tell(Kind.RETURNED, [cluster, numbers, None])
        for at, number in enumerate(numbers):
            table = {"name": b"evil.txt", "size": 0, "mode": 0o644, "modified": 1}
            node.tell(Kind.PROVISIONAL, [100 * turn + at + 2, cluster, number, WRONG])
            node.tell(Kind.OUTPUT, [cluster, number, 1, 0, b"a lie\n"])
            node.tell(Kind.OFFER, [cluster, number, os.urandom(16), table])
        node.tell(Kind.PLACED, [cluster, turn, "it failed"])
        node.tell(Kind.LISTED, [turn, numbers])
        if cluster != mine:
            node.tell(Kind.READY, [cluster, None, {}])
            node.tell(Kind.CLOSED, [cluster, "it failed", {}])
    for _ in range(4 * len(numbers)):
        assert node.until(Kind.TOOK).body[1] == "the job is over for its client"
    node.tell(Kind.FETCH, [digest_of(FILE), 0, len(FILE)])
    assert node.until(Kind.PIECE).body[2] == "it is not wanted any more"
    node.tell(Kind.PROVE, [digest_of(FILE), bytes(32)])
    assert node.until(Kind.PROVEN).body == [digest_of(FILE), bytes(32), b""]


@pytest.mark.parametrize("imitates", [False, True])
def test_what_a_node_says_of_others_jobs_is_passed_over_and_it_is_named(
    attack: Attack, tmp_path: Path, gate: Gate, nothing_left: None, imitates: bool
) -> None:
    """Also where it says that it is the honest one; which it is not, with another key."""
    lied = threading.Event()

    def serves(client: Peer) -> None:
        client.tell(Kind.HELD, [[], []])
        client.tell(Kind.SHARE, [2, 1])
        opened = client.until(Kind.OPEN).body[0]
        client.tell(Kind.READY, [opened, None, {}])
        _, own, *_ = client.until(Kind.RUN).body
        lies(client, opened, own)
        lied.set()
        client.tell(Kind.RESULTS, [999, opened, own, [0.0], [0.0], [pickle.dumps("own")], []])
        while client.frame() is not None:
            pass

    (tmp_path / "secret.txt").write_bytes(FILE)
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    file = str(secret_file(tmp_path, SECRET))
    says = attack.proven().greet().body[0]["identity"] if imitates else "false"
    with ExitStack() as stack:
        false = stack.enter_context(closing(FalseNode(f"{PLACE}.20", serves, says)))
        program = Program(path, str(gate), attack.host, false.host, DISPY_SECRET_FILE=file)
        stack.callback(program.process.communicate)
        stack.callback(program.process.kill)
        assert lied.wait(DEADLINE)
        gate.open(2)
        assert program.end() == 0, program.output
    assert f"['right', '{FILE.decode()}', 'own']" in program.output
    assert program.output.count(f"({false.host}) speaks of ") == 1, program.output
    assert imitates == ("has another key" in program.output)
    for words in ("a lie", "a callback", "wrong", "Traceback", "it failed"):
        assert words not in program.output
    assert not (tmp_path / "evil.txt").exists()
