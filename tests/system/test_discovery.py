"""Clients find the nodes that they mean, whenever those come and go."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from system.hostile import SECRET, Honest, Impostor, identity_of, secret_file

from dispy.model.ports import CLIENT_PORT, NODE_PORT
from dispy.net.discovery import ANNOUNCEMENTS
from dispy.protocol.discovery import Gone, Here, decode_packet, encode_packet
from dispy.protocol.frames import encode_frame
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.system.network import share_port

# Says which node ran each job, once `count` of them have run one; a job sleeps so that the first
# node does not take all of them.
FIND = """
import sys, time
import dispy

def where():
    import time
    time.sleep(0.02)
    return {tag}

def searched(cluster):
    tasks = cluster._session.discovery._tasks
    while not all(task.dead for task in tasks.values()):
        time.sleep(0.01)

def find(cluster, count):
    ran, deadline = set(), time.monotonic() + 30
    while len(ran) < count and time.monotonic() < deadline:
        ran.update(job() for job in [cluster.submit() for _ in range(8)])
    return ran

if __name__ == "__main__":
    cluster = dispy.JobCluster(where, nodes={nodes}, local_node=False{more})
    print(*sorted(find(cluster, {count})), flush=True)
    {then}
"""


SEARCHED = "cluster._session.hub.call(cluster._session.search_lines, cluster)"


def finding(
    count: int, nodes: object = None, then: str = "pass", more: str = "",
    tag: str = "dispy_node_ip_addr",
) -> str:  # fmt: skip
    return FIND.format(nodes=repr(nodes), count=count, then=then, more=more, tag=tag)


class Announcements:
    """Hears what nodes of this machine announce."""

    def __init__(self) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        share_port(self.socket)
        self.socket.bind(("", CLIENT_PORT))
        self.socket.settimeout(30)

    def hear(self, count: int) -> list[Here | Gone]:
        """Return the next `count` of them."""
        return [decode_packet(self.socket.recv(2048)) for _ in range(count)]


@pytest.fixture
def announcements() -> Iterator[Announcements]:
    """Listen from before the first node starts."""
    heard = Announcements()
    yield heard
    heard.socket.close()


def test_a_node_announces_its_start_and_its_end(start_node, announcements) -> None:
    node = start_node("--name=bench")
    first, *again = announcements.hear(ANNOUNCEMENTS)
    assert (first.name, first.port, first.nonce) == ("bench", node.port, b"")
    assert again == [first] * (ANNOUNCEMENTS - 1)
    assert node.end() == 0
    assert announcements.hear(1) == [Gone(first.identity)]


def test_every_node_of_this_machine_is_found_whatever_its_address_or_port(
    run_program, start_node, announcements
) -> None:
    nodes = [start_node(), start_node(), start_node(host="127.0.0.1", port=51399)]
    announcements.hear(len(nodes) * ANNOUNCEMENTS)  # all are said: only an answer finds them now
    program = run_program(finding(3))
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-1].split() == sorted(node.host for node in nodes)


def test_a_wildcard_with_a_port_finds_nodes_of_that_port_alone(run_program, start_node) -> None:
    start_node()
    there = start_node(port=51399)
    program = run_program(finding(1, more=", node_port=51399", then="print(*find(cluster, 1))"))
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-2:] == [there.host, there.host]


def test_a_node_found_by_broadcast_is_used_instead_of_a_local_one(run_program, start_node) -> None:
    node = start_node()
    program = run_program(finding(1).replace(", local_node=False", ""))
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-1].split()[-1] == node.host


def test_a_list_means_exactly_its_nodes(run_program, start_node) -> None:
    first = start_node("--name=first")
    start_node("--name=its-neighbour", host=first.host, port=51399)
    second = start_node("--name=second", port=51398)
    start_node("--name=stranger")
    listed = [first.host, (second.host, second.port)]
    # A cluster of the same program that means any node brings in the others.
    then = "any_node = dispy.JobCluster(where); find(any_node, 4); print(*sorted(find(cluster, 2)))"
    program = run_program(finding(2, listed, then=then, tag="dispy_node_name"))
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-1].split() == ["first", "second"]
    assert program.output.count(") found") == 4


def test_a_pattern_excludes_nodes(run_program, start_node) -> None:
    node = start_node()
    start_node(host=f"127.1.{os.getpid() % 250}.7")
    program = run_program(finding(1, ["127.0.*"], then="print(*find(cluster, 1))"))
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-2:] == [node.host, node.host]


def test_a_node_that_starts_later_joins_while_jobs_run(run_program, start_node) -> None:
    first = start_node()
    then = "searched(cluster); print('searched', flush=True); print(*sorted(find(cluster, 2)))"
    program = run_program(finding(1, then=then))
    while "searched" not in program.line():
        pass
    second = start_node()
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-1].split() == sorted([first.host, second.host])


def test_a_listed_host_that_is_down_is_used_as_soon_as_a_node_runs_there(
    run_program, start_node
) -> None:
    host = f"127.0.{os.getpid() % 250}.77"
    program = run_program(finding(1, [host]).replace("print(*", "print('asking'); print(*", 1))
    while "asking" not in program.line():
        pass
    start_node(host=host)
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-1] == host


def test_a_host_that_only_a_closed_cluster_named_is_dialled_no_more(run_program) -> None:
    source = """
import dispy, time
if __name__ == "__main__":
    cluster = dispy.JobCluster(len, nodes=["127.9.9.9"])
    keepers, deadline = cluster._session.scheduler.keepers, time.monotonic() + 30
    while not len(keepers):
        time.sleep(0.01)
    cluster.close()
    while len(keepers) and time.monotonic() < deadline:
        time.sleep(0.01)
    print(len(keepers))
"""
    program = run_program(source)
    assert program.end() == 0, program.output
    assert program.output.splitlines()[-1] == "0"


def test_a_node_of_another_version_is_told_once_and_not_asked_all_the_time(run_program) -> None:
    then = "sys.stdin.readline()"
    source = finding(0, ["127.9.9.8"], then=f"{then}; print(*{SEARCHED}, sep='\\n'); os._exit(0)")
    old = Hello("node", "1" * 32, "old", version="5.0.0rc1", protocol=0)
    with socket.create_server(("127.9.9.8", NODE_PORT)) as server:
        server.settimeout(30)
        program = run_program("import os\n" + source)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"".join(encode_frame(Kind.HELLO, old.body())))
            while connection.recv(4096):
                pass  # until it has read that
        server.settimeout(1.5)
        with pytest.raises(TimeoutError):
            server.accept()
        program.say("go on")
        assert program.end() == 0, program.output
    assert "asked 127.9.9.8 port 51348: old runs dispy 5.0.0rc1 (protocol 0)" in program.output
    assert "pip install dispy==" in program.output


def test_an_announcement_that_was_missed_is_made_good_by_a_search(run_program, start_node) -> None:
    # Somebody who shares nothing has the client's port.
    deaf = "import socket; taken = socket.socket(type=socket.SOCK_DGRAM); taken.bind(('', 51347))\n"
    again = "cluster.discover_nodes(['*'])"
    then = f"print('asking', flush=True); sys.stdin.readline(); {again}; print(*find(cluster, 2))"
    first = start_node()
    program = run_program(deaf + finding(1, then=then))
    while "asking" not in program.line():
        pass
    second = start_node()
    program.say("look")
    assert program.end() == 0, program.output
    assert set(program.output.splitlines()[-1].split()) == {first.host, second.host}


HOLD = """
import dispy, os, sys, time

def hold(gate):
    with open(gate):
        return dispy_node_ip_addr

if __name__ == "__main__":
    cluster = dispy.JobCluster(hold, local_node=False, reentrant=True)
    jobs = [cluster.submit(sys.argv[1]) for _ in range(2)]
    while not all(job.status == dispy.DispyJob.Running for job in jobs):
        time.sleep(0.01)
    print("running", *[job.ip_addr for job in jobs], flush=True)
    print(*[job() for job in jobs])
"""


def test_the_jobs_of_a_node_that_ends_go_on_elsewhere(run_program, start_node, tmp_path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    nodes = {node.host: node for node in (start_node("--cpus=1"), start_node("--cpus=1"))}
    program = run_program(HOLD, str(gate))
    while not (line := program.line()).startswith("running"):
        pass
    first, second = line.split()[1:]
    assert {first, second} == set(nodes)
    assert nodes[first].end() == 0
    with gate.open("r+b", buffering=0):
        assert program.end() == 0, program.output
    assert program.output.splitlines()[-1].split() == [second, second]
    assert f"({first}) is lost: node" in program.output


def test_a_program_that_used_a_node_ends_without_a_crash(run_program, start_node) -> None:
    start_node()
    programs = [run_program(finding(1)) for _ in range(8)]
    assert [program.end() for program in programs] == [0] * 8


def test_a_node_at_other_machines_address_is_refused_before_it_is_asked(run_program) -> None:
    program = run_program(finding(1, ["192.0.2.1"]))
    assert program.end() == 1
    assert "192.0.2.1: nodes of other machines would be used without encryption" in program.output
    assert "DISPY_INSECURE=1" in program.output


def test_what_was_tried_is_told_line_by_line(run_program, start_node) -> None:
    node = start_node()
    host = f"127.0.{os.getpid() % 250}.77"
    then = f"print(*{SEARCHED}, sep='\\n')"
    program = run_program(finding(1, [node.host, host], then=then))
    assert program.end() == 0, program.output
    assert f"asked {host} port 51348: no answer: Connection refused\n" in program.output
    assert f"`dispy doctor {host}` checks the way to it" in program.output


FLOOD = """
import dispy, os, socket, threading, time
from dispy.model.ports import CLIENT_PORT
from dispy.protocol.discovery import Here, encode_packet

def lie():
    liar = socket.socket(type=socket.SOCK_DGRAM)
    for number in range(8000):
        wire = encode_packet(Here(os.urandom(16).hex(), "liar", 1 + number % 40000))
        liar.sendto(wire, ("127.0.0.1", CLIENT_PORT))
        liar.sendto(os.urandom(60), ("127.0.0.1", CLIENT_PORT))

def double(n):
    return 2 * n

if __name__ == "__main__":
    with dispy.JobCluster(double) as cluster:
        print(cluster.submit(1)())
        liars = [threading.Thread(target=lie) for _ in range(2)]
        for liar in liars:
            liar.start()
        while any(liar.is_alive() for liar in liars):
            assert sum(cluster.map(range(1000))) == 999000
        print(sum(cluster.map(range(1000))))
"""


def test_announcements_that_are_lies_do_not_keep_a_program_from_its_jobs(run_program) -> None:
    program = run_program(FLOOD)
    assert program.end() == 0, program.output
    assert [line for line in program.output.splitlines() if line.isdecimal()] == ["2", "999000"]


def test_announcements_without_our_secret_are_not_dialled(start_node, tmp_path) -> None:
    secret = f"--secret-file={secret_file(tmp_path, SECRET)}"
    node = start_node("--cpus=1", secret)
    place = f"127.4.{os.getpid() % 250}.9"
    with (
        closing(Honest(tmp_path)) as program,
        # Who dials it is told to end, and the test waits for nothing.
        closing(Impostor(place, lambda peer: program.program.say("enough"))) as impostor,
        socket.socket(type=socket.SOCK_DGRAM) as liar,
    ):
        program.wait_for("9\n")  # it has run a job, on the node that has proven itself
        liar.bind((place, 0))
        for number in range(1000):
            proofs = os.urandom(128) if number % 2 else b""
            lie = Here(identity_of(f"liar {number}"), "liar", impostor.port, proofs=proofs)
            liar.sendto(encode_packet(lie), ("127.0.0.1", CLIENT_PORT))
        program.wait_for(f"node liar at {place} port {impostor.port} is refused: it has not the")
        joined = start_node("--cpus=1", secret)
        program.wait_for(f"({joined.host}) found")
        assert program.end().count(" found") == 2
        assert impostor.connections == 0
    assert node.end() == 0


def test_why_says_what_was_tried_where_no_node_can_run_a_job(run_program) -> None:
    host = f"127.0.{os.getpid() % 250}.78"
    source = f"""
import dispy, time
if __name__ == "__main__":
    cluster = dispy.JobCluster(len, nodes=["{host}"])
    job = cluster.submit("abc")
    while "refused" not in job.why():
        time.sleep(0.01)
    print(job.why())
    cluster.close(timeout=0, terminate=True)
"""
    program = run_program(source)
    assert program.end() == 0, program.output
    assert f"asked {host} port 51348: no answer: Connection refused" in program.output
    assert f"`dispy doctor {host}` checks the way to it" in program.output
