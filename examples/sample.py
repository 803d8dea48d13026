"""Run a function with different arguments on all processors, and print what came back."""

import random
import sys


def simulate(seconds):
    """Stand for work that takes a while; imports belong into the function that travels."""
    import platform
    import time

    time.sleep(seconds)
    return platform.node(), seconds


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    cluster = dispy.JobCluster(simulate)
    jobs = []
    for number in range(count):
        job = cluster.submit(random.uniform(0.05, 0.2))
        job.id = number  # any object of yours
        jobs.append(job)
    for job in jobs:
        host, seconds = job()  # waits for this job
        print(f"job {job.id} ran on {host} ({job.ip_addr}) for {seconds:.2f} s")
    cluster.print_status()
