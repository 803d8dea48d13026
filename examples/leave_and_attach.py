"""Submit jobs with one program, and collect their results with another one, later or elsewhere::

    dispy node --host=127.0.0.1 &
    dispy scheduler --nodes=127.0.0.1 &
    python leave_and_attach.py submit
    python leave_and_attach.py collect

The first one ends at once. The scheduler keeps the cluster, and gives it to whoever knows its name
and key. Without an argument, it does one after the other.
"""

import sys

HOST, NAME, KEY = "127.0.0.1", "squares", "a text that nobody guesses"


def compute(n):
    """Take a moment."""
    import time

    time.sleep(n / 100)
    return n * n


if __name__ == "__main__":
    import dispy

    if "collect" not in sys.argv:
        cluster = dispy.SharedJobCluster(compute, scheduler_host=HOST, name=NAME, key=KEY)
        for n in range(1, 6):
            cluster.submit_job_id(f"square of {n}", n)
        cluster.detach()
    if "submit" not in sys.argv:
        cluster = dispy.SharedJobCluster.attach(NAME, KEY, scheduler_host=HOST)
        for job in cluster.jobs:
            print("the", job.id, "is", job.get())
        cluster.close()
