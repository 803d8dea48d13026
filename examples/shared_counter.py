"""Let all jobs of a node count together, in memory that they share."""

import sys


def setup():
    """Make a number and its lock before the jobs' processes are forked: they inherit both."""
    global lock, total
    import multiprocessing

    lock = multiprocessing.Lock()
    total = multiprocessing.Value("i", 0, lock=False)
    return 0


def add(count):
    """Add one after the other; without the lock some would be lost."""
    for _ in range(count):
        with lock:
            total.value += 1
    return dispy_node_name, total.value  # noqa: F821  # provided in every job


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with dispy.JobCluster(add, setup=setup) as cluster:
        jobs = [cluster.submit(count) for _ in range(8)]
        reached = {}
        for job in cluster.as_completed(jobs):
            node, value = job.get()
            reached[node] = max(value, reached.get(node, 0))
    print(f"counted {sum(reached.values())} of {8 * count} on {len(reached)} nodes")
