"""Links break in every way; jobs go on, none runs twice that must not, none is lost or doubled.

Signs of life go more often here than every five seconds: with one a second, a second without
network stands for five.
"""

import signal
import sys
import time
from pathlib import Path

from netns.links import Said, Work
from netns.machines import Machine


def start_nodes(machines: list[Machine], directory: Path, **options: int) -> list[Said]:
    """Start a node on each machine, called a, b, c and so on; return what they say."""
    return [
        Said(machine.start_node(directory, f"--name={name}", **options))
        for machine, name in zip(machines, "abcdef", strict=False)
    ]


def finished(work: Work) -> bool:
    """Say whether every job has its own result, after one execution."""
    ends = work.ended()
    assert [(end.status, end.result) for end in ends] == [
        ("Finished", number) for number in range(work.jobs)
    ]
    return set(work.started().values()) == {1}


def test_jobs_go_on_through_a_network_that_is_cut_both_ways_or_one_way(machines, tmp_path) -> None:
    here, off, deaf, mute = machines(4)
    there = [off, deaf, mute]
    start_nodes(there, tmp_path)
    work = Work(here, tmp_path, 6, nodes=[machine.address for machine in there], pulse_interval=2)
    work.wait_for_starts(3)
    off.ip("link", "set", "eth0", "down")
    deaf.drop("INPUT")
    mute.drop("OUTPUT")
    names = [f"node {name} ({m.address})" for m, name in zip(there, "abc", strict=True)]
    work.said.wait_for(*(f"{name} is away: it fell silent" for name in names))
    off.ip("link", "set", "eth0", "up")
    deaf.drop("INPUT", again=False)
    mute.drop("OUTPUT", again=False)
    work.said.wait_for(*(f"{name} is back" for name in names))
    work.open()
    assert finished(work)
    assert ") is lost" not in work.said.text


def test_a_short_cut_ends_no_link_and_a_reset_is_over_at_once(machines, tmp_path) -> None:
    here, there = machines(2)
    (node,) = start_nodes([there], tmp_path)
    work = Work(here, tmp_path, 3, nodes=[there.address], pulse_interval=1)
    work.wait_for_starts(1)
    there.ip("link", "set", "eth0", "down")
    work.open(1)
    time.sleep(1.0)  # so long the cut lasts
    there.ip("link", "set", "eth0", "up")
    work.wait_for_starts(2)
    assert "client" not in node.read().partition("connected")[2]
    there.reset_connections()
    node.wait_for("is away")
    here.reset_connections()
    work.open()
    assert finished(work)
    assert "is away" not in work.said.text
    assert "silent" not in node.read()


def test_a_node_that_hangs_and_one_that_is_off_are_given_up_and_give_nothing_twice(
    machines, tmp_path
) -> None:
    here, hung, off, well = machines(4)
    nodes = start_nodes([hung, off, well], tmp_path, cpus=2)
    hosts = [machine.address for machine in (hung, off, well)]
    works = []
    for reentrant in (False, True):
        directory = tmp_path / f"reentrant-{reentrant}"
        directory.mkdir()
        arguments = {"nodes": hosts, "pulse_interval": 0.3, "reentrant": reentrant}
        works.append(Work(here, directory, 3, **arguments))
        works[-1].wait_for_starts(3)
    once, again = works
    hung.started[0].send_signal(signal.SIGSTOP)
    off.ip("link", "set", "eth0", "down")
    for work in works:
        work.said.wait_for(f"node a ({hung.address}) is lost", f"node b ({off.address}) is lost")
    nodes[1].wait_for("is away: it has been silent for 2 s")
    again.said.wait_for(f"node c ({well.address})")
    hung.started[0].send_signal(signal.SIGCONT)
    off.ip("link", "set", "eth0", "up")
    for work in works:  # used again, as new ones
        found = f"node a ({hung.address}) found", f"node b ({off.address}) found"
        work.said.wait_for(*found, times=2)
        work.open()
    assert [(end.status, end.result) for end in again.ended()] == [
        ("Finished", number) for number in range(3)
    ]
    ends = once.ended()
    assert set(once.started().values()) == {1}
    places = dict(line.split() for line in once.log.read_text().splitlines())
    said = {places[str(end.number)]: end.exception for end in ends}
    assert said["c"] == "None"
    assert "node a was lost: it fell silent" in said["a"]
    assert "its machine takes the connection, and the node says nothing" in said["a"]
    assert "node b was lost: it fell silent" in said["b"]
    assert "its machine does not answer" in said["b"]
    assert f"`dispy doctor {off.address}` checks the way to it" in said["b"]
    assert sorted(end.status for end in ends) == ["Abandoned", "Abandoned", "Finished"]


def test_a_program_that_was_stopped_takes_no_node_for_lost_and_its_node_keeps_its_jobs(
    machines, tmp_path
) -> None:
    here, there = machines(2)
    (node,) = start_nodes([there], tmp_path)
    work = Work(here, tmp_path, 2, nodes=[there.address], pulse_interval=0.3)
    work.wait_for_starts(1)
    there.ip("link", "set", "eth0", "down")
    work.said.wait_for("is away: it fell silent")
    work.process.send_signal(signal.SIGSTOP)
    node.wait_for("is away: it has been silent")
    time.sleep(2.0)  # so long it is stopped: until long after the node would have been lost
    there.ip("link", "set", "eth0", "up")
    work.process.send_signal(signal.SIGCONT)
    work.said.wait_for("is back")
    work.open()
    assert finished(work)
    assert ") is lost" not in work.said.text


def test_who_was_stopped_takes_nobody_for_silent(machines, tmp_path) -> None:
    here, there = machines(2)
    (node,) = start_nodes([there], tmp_path)
    work = Work(here, tmp_path, 2, nodes=[there.address], pulse_interval=0.3)
    work.wait_for_starts(1)
    for process in (work.process, there.started[0]):
        process.send_signal(signal.SIGSTOP)
    time.sleep(2.0)  # so long both are stopped: longer than either may be silent
    there.started[0].send_signal(signal.SIGCONT)
    time.sleep(0.5)  # so long the node looks, twice at least, for a program that is still stopped
    work.process.send_signal(signal.SIGCONT)
    work.open()
    assert finished(work)
    assert "is away" not in work.said.text + node.read()


def test_a_named_host_that_has_moved_is_found_at_its_new_address(machines, tmp_path) -> None:
    here, old, new = machines(3)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{old.address} bench\n")
    start_nodes([old, new], tmp_path)
    work = Work(here, tmp_path, 1, hosts, nodes=["bench"], pulse_interval=0.3, reentrant=True)
    work.wait_for_starts(1)
    old.ip("link", "set", "eth0", "down")
    hosts.write_text(f"{new.address} bench\n")
    work.said.wait_for(f"{old.address} is at another address now: {new.address}")
    work.wait_for_starts(2)
    work.open()
    assert [end.status for end in work.ended()] == ["Finished"]
    assert [line.split()[1] for line in work.log.read_text().splitlines()] == ["a", "b"]


TWO_CLUSTERS = """
import os, sys, time
import dispy

def double(number):
    return 2 * number

if __name__ == "__main__":
    for number in range(2):
        cluster = dispy.JobCluster(double, nodes=[sys.argv[1]], insecure=True)
        print(number, [cluster.submit(n)() for n in range(5)], flush=True)
        cluster.close()
        while not number and not os.path.exists(sys.argv[2]):
            time.sleep(0.02)
"""


def test_a_node_that_forgot_a_program_meanwhile_is_heard_all_the_same(machines, tmp_path) -> None:
    here, there = machines(2)
    (node,) = start_nodes([there], tmp_path)
    program, go_on = tmp_path / "program.py", tmp_path / "go on"
    program.write_text(TWO_CLUSTERS)
    said = Said(here.start(sys.executable, str(program), there.address, str(go_on)))
    said.wait_for("0 [0, 2, 4, 6, 8]")
    time.sleep(0.3)  # in which it is told that it may forget the results
    there.reset_connections()
    node.wait_for(" left")
    go_on.touch()
    said.wait_for("1 [0, 2, 4, 6, 8]")
