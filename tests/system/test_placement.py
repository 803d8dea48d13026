"""What the two cores decide holds between real processes."""

import re

import psutil

PINNED = """
import dispy

def where():
    return dispy_node_name

cluster = dispy.JobCluster(where, nodes=[{hosts}])
while len(cluster.status().nodes) < 2:
    assert cluster.submit()() in ("n1", "n2")
jobs = [cluster.submit_node("n2") for _ in range(6)]
print("ran on", sorted({{job() for job in jobs}}))
print("unknown:", cluster.submit_node("n9"))
cluster.close()
"""


def test_a_pinned_job_runs_on_its_node_alone(run_program, start_node) -> None:
    nodes = [start_node(f"--name=n{n}", "--cpus=1") for n in (1, 2)]
    hosts = ", ".join(repr(node.host) for node in nodes)
    program = run_program(PINNED.format(hosts=hosts), DISPY_INSECURE="1")
    assert program.end() == 0, program.output
    assert "ran on ['n2']" in program.output
    assert "unknown: None" in program.output


LIMITED = """
import dispy, os, sys, time

def meet(path, number):
    import os, time
    open(os.path.join(path, str(number)), "w").close()
    deadline = time.monotonic() + 20
    while not os.path.exists(os.path.join(path, "open")) and time.monotonic() < deadline:
        time.sleep(0.01)
    present = len([name for name in os.listdir(path) if name.isdigit()])
    os.remove(os.path.join(path, str(number)))
    return present

path = sys.argv[1]
limited = dispy.JobCluster(meet, nodes=[dispy.NodeAllocate("{host}", cpus=1)])
free = dispy.JobCluster(len, nodes=["{host}"])
jobs = [limited.submit(path, number) for number in range(4)]
while not os.listdir(path):
    time.sleep(0.01)
print("meanwhile:", [free.submit("ab")() for _ in range(5)])
print(jobs[3].why())
open(os.path.join(path, "open"), "w").close()
print("at once:", max(job() for job in jobs))
"""


def test_a_cluster_runs_no_more_jobs_at_once_than_its_allocation_says(
    run_program, start_node, tmp_path
) -> None:
    node = start_node("--cpus=3")
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    program = run_program(LIMITED.format(host=node.host), str(meeting), DISPY_INSECURE="1")
    assert program.end() == 0, program.output
    assert "meanwhile: [2, 2, 2, 2, 2]" in program.output
    assert re.search(r"node \S+: meet runs the 1 jobs at once there that it may", program.output)
    assert "at once: 1" in program.output


BEHIND = """
import dispy, os, sys, time

def work(path, number):
    import os, time
    if number == "hold":
        open(os.path.join(path, "held"), "w").close()
        deadline = time.monotonic() + 20
        while not os.path.exists(os.path.join(path, "open")) and time.monotonic() < deadline:
            time.sleep(0.01)
    return dispy_node_name

path = sys.argv[1]
cluster = dispy.JobCluster(work, nodes=[{hosts}])
while len({{node.name for node in cluster.status().nodes if node.jobs_done}}) < 2:
    [job() for job in [cluster.submit(path, n) for n in range(20)]]
# One that holds its node up, with others sent there behind it: they come back to the other node.
held = cluster.submit_node("n1", path, "hold")
while not os.path.exists(os.path.join(path, "held")):
    time.sleep(0.01)
jobs = [cluster.submit(path, n) for n in range(2000)]
print("ran on", sorted({{job() for job in jobs}}), held.status.name)
open(os.path.join(path, "open"), "w").close()
print("then", held())
"""


def test_jobs_behind_one_that_does_not_end_run_on_another_node(
    run_program, start_node, tmp_path
) -> None:
    nodes = [start_node(f"--name=n{n}", "--cpus=1") for n in (1, 2)]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    hosts = ", ".join(repr(node.host) for node in nodes)
    program = run_program(BEHIND.format(hosts=hosts), str(meeting), DISPY_INSECURE="1")
    assert program.end() == 0, program.output
    assert "ran on ['n2'] Running" in program.output
    assert "then n1" in program.output


NURSERY = """
import dispy, os, sys, time

def work(path, number):
    import os, time
    open(os.path.join(path, str(number)), "w").close()
    deadline = time.monotonic() + 20
    while not os.path.exists(os.path.join(path, "open")) and time.monotonic() < deadline:
        time.sleep(0.01)
    return dispy_node_name

path = sys.argv[1]
cluster = dispy.JobCluster(work, nodes=["{first}"])
jobs = [cluster.submit(path, n) for n in range(4)]
while not os.listdir(path):
    time.sleep(0.01)
print("begun", flush=True)
jobs[0].wait()
print(jobs[0].status.name, jobs[0].exception)
open(os.path.join(path, "open"), "w").close()
print([job() for job in jobs[1:]], [job.status.name for job in jobs])
cluster.close()
"""


def test_a_killed_nursery_ends_the_job_that_ran_and_the_others_run_in_another(
    run_program, start_node, tmp_path
) -> None:
    node = start_node("--cpus=1", "--name=few")
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    program = run_program(NURSERY.format(first=node.host), str(meeting), DISPY_INSECURE="1")
    while "begun" not in program.line():
        pass
    (worker,) = [
        process
        for process in psutil.Process(node.process.pid).children(recursive=True)
        if process.ppid() != node.process.pid
    ]
    worker.parent().kill()
    assert program.end() == 0, program.output
    assert re.search("^Terminated the worker .* with its nursery", program.output, re.M)
    names = ["few"] * 3
    assert f"{names} ['Terminated', 'Finished', 'Finished', 'Finished']" in program.output
    assert node.end() == 0
