"""A scheduler of one's own: give the next piece of work to the node that has just become free."""

import queue
import sys
import threading


def count_primes(first, last):
    """Count the primes from `first` up to but not including `last`."""
    return sum(
        all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        for number in range(max(first, 2), last)
    )


def give(node):
    """Submit the next piece to `node`; nothing when there is none left."""
    try:
        first = pieces.get_nowait()
    except queue.Empty:
        return
    job = cluster.submit_node(node, first, first + SIZE)
    if job is None:  # the node has gone meanwhile
        pieces.put(first)
    else:
        job.id = first


def happened(status, node, job):
    """Callback for whatever happens to nodes and jobs."""
    if status == dispy.DispyNode.Initialized:
        print(f"node {node.name} is ready with {node.cpus} processors")
        for _ in range(node.cpus):
            give(node)
    elif status == dispy.DispyJob.Finished:
        found[job.id] = job.result
        if len(found) == count:
            finished.set()
        else:
            give(node)


SIZE = 500

if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    found, finished, pieces = {}, threading.Event(), queue.Queue()
    for number in range(count):
        pieces.put(number * SIZE)
    cluster = dispy.JobCluster(count_primes, cluster_status=happened)
    finished.wait()
    cluster.close()
    print(f"there are {sum(found.values())} primes below {count * SIZE}")
