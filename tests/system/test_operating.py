"""Operators see and steer a scheduler that runs: `dispy status`, `nodes`, `explain`, and so on."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, Program, hold
from system.schedulers import Open, RunningScheduler, wait_until_running

from dispy import DispyJob
from dispy.model.errors import DispyError


def done(scheduler: RunningScheduler, *arguments: str) -> str:
    """Return what a command prints that must succeed."""
    ran = scheduler.operate(*arguments)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    return ran.stdout


def refused(scheduler: RunningScheduler, *arguments: str) -> str:
    """Return why the scheduler does not do it."""
    ran = scheduler.operate(*arguments)
    assert ran.returncode == 1, ran.stderr
    assert not ran.stdout
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def status_of(scheduler: RunningScheduler) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(done(scheduler, "status", "--json"))
    return answer


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_status_and_nodes_tell_what_there_is(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    nodes = [start_node("--cpus=1", "--name=left"), start_node("--cpus=2", "--name=right")]
    scheduler = start_scheduler(*nodes)
    wait_for(lambda: status_of(scheduler)["totals"].get("nodes") == 2)
    assert "0 wait, 0 are on nodes" in done(scheduler, "status")

    cluster = open_shared(scheduler, hold)
    jobs = [cluster.submit(str(gate)) for _ in range(5)]
    wait_for(lambda: sum(job.status == DispyJob.Running for job in jobs) == 3)
    answer = status_of(scheduler)
    (row,) = answer["clusters"]
    assert (row["name"], row["waiting"], row["on_nodes"], row["slots"]) == ("hold", 2, 3, 3)
    assert (row["cluster"], row["share"], row["nodes"]) == ("1.1", 1.0, 2)
    assert answer["totals"]["busy"] == answer["totals"]["slots"] == 3
    assert {node["name"]: node["jobs"] for node in answer["nodes"]} == {"left": 1, "right": 2}
    assert [client["connected"] for client in answer["clients"]] == [True]
    assert [client["attachable"] for client in answer["clients"]] == [False]
    assert [owner["slots"] for owner in answer["owners"]] == [3]

    text = done(scheduler, "status")
    assert "2 wait, 3 are on nodes" in text
    assert "1.1      hold" in text
    listed = done(scheduler, "nodes", "--limit=1")
    assert "2 nodes: 2 ready; 3 of 3 slots busy" in listed
    assert "left" in listed
    assert "and 1 more" in listed
    gate.open(5)
    assert cluster.wait(DEADLINE)


def test_explain_says_of_each_node_why_a_job_waits(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    scheduler = start_scheduler(start_node("--cpus=1", "--name=only"))
    cluster = open_shared(scheduler, hold)
    running, waiting = cluster.submit(str(gate)), cluster.submit(str(gate))
    wait_until_running(running)
    for name in ("hold", "1.1"):
        text = done(scheduler, "explain", f"{name}:{waiting.id}")
        assert "node only: its 1 processors are busy with jobs: 1 of hold" in text
    assert "as far as known it runs" in done(scheduler, "explain", f"hold:{running.id}")
    assert "is it hold?" in refused(scheduler, "explain", "hald:1")
    assert "has no job hold:999 that is not final" in refused(scheduler, "explain", "hold:999")
    assert "CLUSTER:NUMBER" in refused(scheduler, "explain", "hold")
    assert "nothing was named" in refused(scheduler, "explain", "")
    other = open_shared(scheduler, hold)
    assert "2 clusters are called hold" in refused(scheduler, "explain", f"hold:{waiting.id}")
    other.close()
    gate.open(2)
    assert cluster.wait(DEADLINE)


def test_a_cluster_that_is_cancelled_from_outside_learns_who_did_it(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    gate: Gate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = start_scheduler(start_node("--cpus=1"))
    cluster = open_shared(scheduler, hold)
    running, waiting, third = (cluster.submit(str(gate)) for _ in range(3))
    wait_until_running(running)
    assert done(scheduler, "cancel", f"hold:{waiting.id}") == "1 job cancelled\n"
    assert waiting.wait(DEADLINE)
    assert waiting.status == DispyJob.Cancelled
    assert waiting.exception.startswith("cancelled by ")
    assert "jobs of hold end Cancelled: cancelled by " in caplog.text
    assert third.status == DispyJob.Created

    assert done(scheduler, "cancel", "1.1") == "2 jobs cancelled\n"
    assert running.wait(DEADLINE)
    assert third.wait(DEADLINE)
    assert [running.status, third.status] == [DispyJob.Cancelled] * 2
    assert running.exception.startswith("cancelled by ")
    assert "KeyboardInterrupt" in running.exception
    # It stays open.
    gate.open()
    assert cluster.submit(str(gate), "again").get(DEADLINE) == "again"
    assert "has no job" in refused(scheduler, "cancel", f"hold:{waiting.id}")
    assert "no cluster 'nothing'" in refused(scheduler, "cancel", "nothing")
    scheduler.end()
    assert "are cancelled by" in scheduler.said
    assert "Traceback" not in scheduler.said


def test_many_jobs_are_cancelled_while_others_are_served(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    scheduler = start_scheduler(start_node("--cpus=1"))
    cluster = open_shared(scheduler, hold)
    jobs = [cluster.submit(str(gate)) for _ in range(20_000)]
    wait_until_running(jobs[0])
    wait_for(lambda: status_of(scheduler)["clusters"][0]["waiting"] == 19_999)
    assert done(scheduler, "cancel", "hold") == "20,000 jobs cancelled\n"
    assert cluster.wait(DEADLINE)
    assert {job.status for job in jobs} == {DispyJob.Cancelled}


def test_a_drained_node_gets_no_new_jobs_until_it_is_used_again(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    nodes = [start_node("--cpus=1", "--name=old"), start_node("--cpus=1", "--name=new")]
    scheduler = start_scheduler(*nodes)
    cluster = open_shared(scheduler, hold)
    first = [cluster.submit(str(gate)) for _ in range(2)]
    for job in first:
        wait_until_running(job)
    assert "node old" in done(scheduler, "drain", "old")
    states = {node["name"]: node["state"] for node in status_of(scheduler)["nodes"]}
    assert states == {"old": "draining", "new": "ready"}
    rest = [cluster.submit(str(gate)) for _ in range(4)]
    waiting = done(scheduler, "explain", f"hold:{rest[-1].id}")
    assert "node old: it is given no new jobs: drained by " in waiting
    pinned = cluster.submit_node(nodes[0].host, str(gate), "pinned")
    gate.open(6)
    assert all(job.wait(DEADLINE) for job in [*first, *rest])
    assert {job.ip_addr for job in rest} == {nodes[1].host}
    assert pinned.status == DispyJob.Created
    assert "drained" in done(scheduler, "nodes")
    assert done(scheduler, "drain", "--off", nodes[0].host).startswith("node old")
    gate.open()
    assert pinned.get(DEADLINE) == "pinned"
    assert "no node 'none'" in refused(scheduler, "drain", "none")


def test_where_no_scheduler_runs_operators_are_told_so(start_node: Callable) -> None:
    nobody = RunningScheduler.__new__(RunningScheduler)
    nobody.host, nobody._environment = "127.0.0.77", None
    ran = nobody.operate("status")
    assert ran.returncode == 2
    assert "Is `dispy scheduler` running there?" in ran.stderr


def test_operators_prove_the_secret_that_clients_prove(
    start_scheduler: Callable, start_node: Callable, tmp_path: Any
) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    for path in (secret, other):
        path.write_text(f"{path.name}, which is long enough for anybody")
        path.chmod(0o600)
    scheduler = start_scheduler(
        start_node(f"--secret-file={secret}"), DISPY_SECRET_FILE=str(secret)
    )
    wait_for(lambda: status_of(scheduler)["totals"].get("nodes") == 1)
    ran = scheduler.operate("status", f"--secret-file={other}")
    assert ran.returncode == 2
    assert "secret" in ran.stderr
    ran = scheduler.operate("status", "--secret-file=none")
    assert ran.returncode == 2


def test_owners_have_no_more_than_they_may_and_are_shown(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    scheduler = start_scheduler(start_node("--cpus=4"), options=["--owner_slots=3"])
    clusters = [open_shared(scheduler, hold, weight=2.5), open_shared(scheduler, hold, priority=7)]
    jobs = [cluster.submit(str(gate)) for cluster in clusters for _ in range(4)]
    wait_for(lambda: sum(job.status == DispyJob.Running for job in jobs) == 3)
    answer = status_of(scheduler)
    (owner,) = answer["owners"]
    assert "@" in owner["owner"]
    assert (owner["limit"], owner["slots"], owner["on_nodes"], owner["clusters"]) == (3, 3, 3, 2)
    assert [row["weight"] for row in answer["clusters"]] == [2.5, 1.0]
    assert [row["priority"] for row in answer["clusters"]] == [0, 7]
    waiting = next(job for job in jobs if job.status == DispyJob.Created)
    assert "of at most 3 slots" in waiting.why()
    gate.open(8)
    assert all(job.wait(DEADLINE) for job in jobs)


def test_clusters_with_a_higher_priority_go_first(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    scheduler = start_scheduler(start_node("--cpus=1"))
    usual, urgent = open_shared(scheduler, hold), open_shared(scheduler, hold, priority=1)
    first = usual.submit(str(gate))
    wait_until_running(first)
    later = [usual.submit(str(gate)) for _ in range(2)]
    soon = urgent.submit(str(gate), "soon")
    wait_for(lambda: status_of(scheduler)["totals"]["jobs_waiting"] == 3)
    gate.open()
    wait_until_running(soon)
    assert all(job.status == DispyJob.Created for job in later)
    gate.open(3)
    assert usual.wait(DEADLINE)


@pytest.mark.parametrize("shared", [False, True])
def test_jobs_with_a_higher_priority_go_before_others_of_their_cluster(
    open_shared: Open,
    open_cluster: Callable,
    start_scheduler: Callable,
    start_node: Callable,
    gate: Gate,
    shared: bool,
) -> None:
    node = start_node("--cpus=1")
    if shared:
        cluster = open_shared(start_scheduler(node), hold)
    else:
        cluster = open_cluster(hold, nodes=[node.host])
    wait_until_running(cluster.submit(str(gate)))
    low, usual = cluster.submit(str(gate), dispy_job_priority=-1), cluster.submit(str(gate))
    high = cluster.submit(str(gate), dispy_job_priority=5)
    gate.open(4)
    assert cluster.wait(DEADLINE)
    assert sorted((low, usual, high), key=lambda job: job.start_time) == [high, usual, low]
    with pytest.raises(DispyError, match="dispy_job_priority is a whole number"):
        cluster.submit(str(gate), dispy_job_priority=0.5)


def test_a_log_for_programs_has_what_happens_to_clients_clusters_nodes_and_jobs(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--cpus=1", "--name=one", "--log_format=json")
    scheduler = start_scheduler(node, options=["--log_format=json"])
    cluster = open_shared(scheduler, hold)
    wait_until_running(cluster.submit(str(gate)))
    done(scheduler, "drain", "one")
    gate.open()
    assert cluster.wait(DEADLINE)
    cluster.submit(str(gate))
    done(scheduler, "cancel", "hold")
    assert cluster.wait(DEADLINE)
    cluster.close()
    assert node.end() == 0
    scheduler.wait_for("node_lost")
    assert scheduler.end() == 0
    lines = [json.loads(line) for line in scheduler.said.splitlines()]
    found = {line["event"]: line for line in lines if "event" in line}
    assert found["node_found"]["node"] == found["node_lost"]["node"] == "one"
    assert found["node_found"]["processors"] == 1
    assert found["client_connected"]["client"] == 1
    assert (found["cluster_opened"]["cluster"], found["cluster_opened"]["name"]) == ("1.1", "hold")
    assert found["cluster_opened"]["owner"] == found["node_drained"]["operator"]
    assert found["jobs_cancelled"]["jobs"] == 1
    assert found["cluster_closed"]["jobs"] == 0
    jobs = {name: found["jobs"].get(name) for name in ("submitted", "finished", "cancelled")}
    assert jobs == {"submitted": 2, "finished": 1, "cancelled": 1}
    told = [json.loads(line) for line in node.said.splitlines() if line.startswith("{")]
    assert {"client_connected"} <= {line.get("event") for line in told}


def test_options_of_dispy_4_do_what_they_can_or_say_that_they_do_nothing(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, tmp_path: Any
) -> None:
    def leave_a_file() -> str:
        import os

        with open("left", "w"):
            return os.getcwd()

    node = start_node()
    options = ["--cleanup_nodes", "--cooperative", "--max_file_size=1M", "--pulse_interval=0.5"]
    scheduler = start_scheduler(node, options=options)
    assert "--cooperative of dispy 4 has no effect: each program decides" in scheduler.said
    cluster = open_shared(scheduler, leave_a_file, cleanup=False)
    directory = cluster.submit().get(DEADLINE)
    cluster.close()
    wait_for(lambda: not os.path.exists(directory))
    assert scheduler.end() == 0

    # Started again, it knows what it was given; unless it is to forget it.
    again = start_scheduler(node, data=str(tmp_path / "scheduler-0"))
    assert "has no effect" not in again.said
    gone = open_shared(again, leave_a_file)
    assert gone.submit().get(DEADLINE)
    again.kill()
    fresh = start_scheduler(node, data=str(tmp_path / "scheduler-0"), options=["--clean"])
    assert status_of(fresh)["clusters"] == []
    assert "begun where the earlier scheduler ended" not in fresh.said


def test_a_connection_too_many_is_refused_in_words_and_a_node_too_many_is_told(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    run_program: Callable[..., Program],
) -> None:
    source = """
import dispy, sys

def compute():
    pass

if __name__ == "__main__":
    cluster = dispy.SharedJobCluster(compute, scheduler_host=sys.argv[1])
    job = cluster.submit()
    job()
"""
    nodes = [start_node("--cpus=1", f"--name=node{n}") for n in range(2)]
    few = ["sh", "-c", 'ulimit -Sn 50; ulimit -Hn 56; exec "$@"', "sh"]
    scheduler = start_scheduler(*nodes, under=few)  # room for one of each
    assert "the limit of descriptors is low (56)" in scheduler.said
    scheduler.wait_for("no room for the node at")
    totals = status_of(scheduler)["totals"]
    assert (totals["nodes"], totals["nodes_without_room"]) == (1, 1)
    assert "1 without room" in done(scheduler, "status")

    cluster = open_shared(scheduler, hold)
    wait_for(lambda: status_of(scheduler)["totals"]["clients"] == 1)
    other = run_program(source, scheduler.host)
    while "has 1 programs connected, as many as it may" not in other.line():
        assert other.process.poll() is None, other.output
    # Operators still get in; and when somebody leaves, the program that was refused does.
    assert status_of(scheduler)["totals"]["clients"] == 1
    cluster.close()
    cluster._session.end()
    assert other.end() == 0, other.output
    assert scheduler.end() == 0
    assert "Traceback" not in scheduler.said


def test_a_drained_node_stays_so_when_the_scheduler_is_killed(
    start_scheduler: Callable, start_node: Callable
) -> None:
    scheduler = start_scheduler(start_node("--name=old"), start_node("--name=new"))
    wait_for(lambda: status_of(scheduler)["totals"].get("nodes_ready") == 2)
    done(scheduler, "drain", "old")
    scheduler.kill()
    scheduler.start()
    wait_for(lambda: status_of(scheduler)["totals"].get("nodes_ready") == 1)
    wait_for(lambda: status_of(scheduler)["totals"].get("nodes_drained") == 1)
    done(scheduler, "drain", "--off", "old")
    scheduler.kill()
    scheduler.start()
    wait_for(lambda: status_of(scheduler)["totals"].get("nodes_ready") == 2)
