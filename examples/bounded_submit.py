"""Work through input without end: at most so many jobs are waiting or running at any time."""

import itertools
import sys
import threading


def square(number):
    """Do the work for one item."""
    return number * number


def done(job):
    """Callback: note the result, and let the next item in."""
    global total
    total += job.result
    job.result = None  # it has been used; do not keep it
    room.release()


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    total = 0
    room = threading.Semaphore(50)
    with dispy.JobCluster(square, job_status=done) as cluster:
        for number in itertools.islice(itertools.count(), count):
            room.acquire()
            cluster.submit(number)
    print(f"the sum of {count} squares is {total}")
