"""Use a node behind a firewall, through a tunnel that ssh makes::

    ssh -N -L 51400:127.0.0.1:51348 user@far-away    # there: dispy node
    python ssh_tunnel.py 51400

The program dials the node through the tunnel and needs no port of its own, so that nothing has to
be forwarded back.
"""

import sys


def compute(n):
    """Take a moment, far away."""
    import time

    time.sleep(n / 100)
    return dispy_node_name, n * n  # noqa: F821  # provided in every job


if __name__ == "__main__":
    import dispy

    nodes = [("127.0.0.1", int(sys.argv[1]))] if len(sys.argv) > 1 else None
    with dispy.JobCluster(compute, nodes=nodes) as cluster:
        jobs = [cluster.submit(n) for n in range(1, 6)]
        print("squares from", jobs[0].get()[0], [job.get()[1] for job in jobs])
