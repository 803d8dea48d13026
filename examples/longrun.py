"""Search without end; each job keeps the best it has found and returns it when interrupted."""

import sys
import threading


def approximate(seed):
    """Estimate pi from random points until told to stop."""
    import random

    choose = random.Random(seed)
    inside = points = 0
    try:
        while True:
            points += 1
            inside += choose.random() ** 2 + choose.random() ** 2 <= 1
            if points % 20_000 == 0:
                dispy_provisional_result(points)  # noqa: F821  # provided in every job
    except KeyboardInterrupt:  # what `cluster.cancel` becomes inside the job
        return 4 * inside / points, points


def progress(status, node, job):
    """Callback for whatever happens: wait for a job that has looked at enough points."""
    if status == dispy.DispyJob.ProvisionalResult and job.result >= 100_000:
        enough.set()


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    enough = threading.Event()
    cluster = dispy.JobCluster(approximate, cluster_status=progress)
    jobs = [cluster.submit(seed) for seed in range(count)]
    print("searching; Ctrl-C ends the search", flush=True)
    try:
        enough.wait()
    except KeyboardInterrupt:
        print("interrupted")
    for job in jobs:
        cluster.cancel(job)
    for job in jobs:
        if job() is None:
            print(f"job {job.id} had not begun ({job.status.name})")
        else:
            value, points = job.result
            print(f"job {job.id}: {value:.4f} from {points} points ({job.status.name})")
