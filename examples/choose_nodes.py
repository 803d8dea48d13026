"""Say which nodes to use, and how many processors of each."""

import sys

import dispy


class Roomy(dispy.NodeAllocate):
    """Leaves one processor of each machine alone, and machines without room altogether."""

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
        """Return how many processors of a node to use; called when it is found."""
        if not platform.startswith("Linux"):
            return 0
        if avail_info is not None and avail_info.memory < 64 * 1024 * 1024:  # bytes
            return 0
        return max(1, cpus - 1)


def where():
    """Return where this runs."""
    return dispy_node_name  # noqa: F821  # provided in every job


if __name__ == "__main__":
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    for nodes in (
        "*",  # any node that answers
        [f"{host.rpartition('.')[0]}.*"],  # those of one network
        [dispy.NodeAllocate("*", cpus=1)],  # one processor of each
        [{"host": "*", "cpus": -1}],  # all but one of each
        [Roomy("*")],
    ):
        with dispy.JobCluster(where, nodes=nodes, loglevel=dispy.logger.WARNING) as cluster:
            name = cluster.submit().get()
            used = sum(node.cpus for node in cluster.status().nodes)
            print(f"ran on {name}; {used} processors to use")
