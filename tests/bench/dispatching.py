"""What the scheduling core costs for each job that it sends: `python -m tests.bench.dispatching`.

Usage:
  dispatching [--beside=<directory>] [--rounds=<n>] [--jobs=<n>] [--policies=<names>]

Options:
  --beside=<directory>  another checkout, measured in turns in the same run, policy by load
  --rounds=<n>          how often to measure each, in turns; the least is compared [default: 5]
  --jobs=<n>            jobs that are sent in each measurement [default: 4000]
  --policies=<names>    with commas between them [default: load,fair,first,early,rounds]

All nodes are busy; jobs end one by one, and for each the next one is sent. Microseconds of
processor time for a job, from its result to the order for the next.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from docopt import docopt

from dispy.scheduling.actions import RunBatch
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node

HERE = Path(__file__).parents[2]
#         nodes, clusters on each, clusters in all, queued jobs
CASES = {
    "10 nodes": (10, 1, 1, 1_000),
    "1,000 nodes": (1_000, 1, 1, 1_000),
    "10,000 nodes": (10_000, 1, 1, 1_000),
    "10 nodes, 1,000,000 jobs": (10, 1, 1, 1_000_000),
    "10,000 nodes, 1,000,000 jobs": (10_000, 1, 1, 1_000_000),
    "10 nodes, 1,000 clusters": (10, 1_000, 1_000, 1_000_000),
    "100 nodes, 1,000 clusters": (100, 1_000, 1_000, 1_000_000),
    "10,000 nodes, 1,000 clusters": (10_000, 10, 1_000, 1_000_000),
}


def make(policy: str) -> Scheduling:
    if policy == "load":
        return Scheduling()  # as other checkouts have it
    from dispy.scheduling.choosing import policy_of

    return Scheduling(policy_of(policy))


def measure(policy: str, case: str, jobs: int) -> float:
    """Return microseconds a job."""
    nodes, on_each, clusters, queued = CASES[case]
    core = make(policy)
    for number in range(clusters):
        core.cluster_opened(Cluster(number, f"c{number}"))
    for at in range(nodes):
        core.node_joined(Node(f"n{at}", f"n{at}", 1))
        for step in range(on_each):
            number = (at * on_each + step) % clusters
            core.cluster_allocated(f"n{at}", number, 1)
            core.cluster_ready_on(f"n{at}", number)
    first = 0
    each = max(1, (queued + nodes + jobs) // clusters)
    for number in range(clusters):
        core.jobs_submitted(number, range(first, first + each))
        first += each
    running: dict[str, tuple[int, int]] = {}
    take(core, running, 0.0)
    names, now, sent = list(running), 0.0, 0
    spent = 0.0
    for at in range(jobs + 500):
        name = names[at * 7919 % len(names)]
        cluster, job = running.pop(name)
        now += 0.001
        begin = time.process_time()
        core.jobs_finished(name, cluster, [job], 1.0, now)
        actions: Any = core.place(now)
        if at >= 500:  # who waits has joined the lines by now
            spent += time.process_time() - begin
            sent += sum(len(action.jobs) for action in actions if isinstance(action, RunBatch))
        note(actions, running)
    assert sent == jobs, f"{sent} jobs sent"
    return spent / jobs * 1e6


def take(core: Scheduling, running: dict[str, tuple[int, int]], now: float) -> None:
    note(core.place(now), running)


def note(actions: Any, running: dict[str, tuple[int, int]]) -> None:
    for action in actions:
        if isinstance(action, RunBatch):
            running[action.node_id] = (action.cluster_id, action.jobs[0])


def ask(directory: Path, policy: str, case: str, jobs: str) -> float:
    """Measure in a process of its own, with the code of a checkout."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(directory)!r});"
        f"known = runpy.run_path({__file__!r});"
        f"print(known['measure']({policy!r}, {case!r}, {jobs}))"
    )
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, cwd="/", capture_output=True, check=True).stdout)


def main() -> None:
    options = docopt(__doc__)
    columns = [(HERE, policy) for policy in options["--policies"].split(",")]
    heads = [policy for _, policy in columns]
    if options["--beside"]:
        columns.insert(0, (Path(options["--beside"]).resolve(), "load"))
        heads.insert(0, "beside")
    print(f"{'us a job':30}" + "".join(f"{head:>10}" for head in heads))
    for case in CASES:
        best = [float("inf")] * len(columns)
        for _ in range(int(options["--rounds"])):
            for at, (directory, policy) in enumerate(columns):
                best[at] = min(best[at], ask(directory, policy, case, options["--jobs"]))
        print(f"{case:30}" + "".join(f"{each:10.1f}" for each in best), flush=True)


if __name__ == "__main__":
    main()
