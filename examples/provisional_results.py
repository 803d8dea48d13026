"""Let many jobs search at random; stop all of them when one has found something good enough."""

import sys
import threading


def search(seed, target):
    """Look for a number close to 1; tell of each that is better than the last."""
    import random

    choose = random.Random(seed)
    best = 0.0
    while best < target:
        value = choose.random()
        if value > best:
            best = value
            dispy_provisional_result(best)  # noqa: F821  # provided in every job
    return best


def watch(job):
    """Callback: called with every provisional and every final result, on one thread."""
    if job.status == dispy.DispyJob.ProvisionalResult:
        if job.result > 0.9999 and not found.is_set():
            print(f"job {job.id} has {job.result:.6f}: good enough")
            found.set()
            for other in jobs:
                cluster.cancel(other)
    elif job.status == dispy.DispyJob.Finished:
        print(f"job {job.id} ended with {job.result:.6f}")
    else:
        print(f"job {job.id}: {job.status.name}")


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    found = threading.Event()
    jobs = []
    with dispy.JobCluster(search, callback=watch) as cluster:
        jobs += [cluster.submit(seed, 0.999999) for seed in range(count)]
        found.wait()
