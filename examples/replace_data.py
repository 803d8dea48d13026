"""Replace what nodes hold in memory while the cluster is open: clean up and set up again."""

import threading

import dispy


class WithPrices(dispy.NodeAllocate):
    """Sets each node up with the prices that are valid when it is asked."""

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
        """Called when a node is found, and again by `resetup_node`."""
        self.setup_args = (dict(prices),)
        return cpus


def setup(given):
    """Make the prices global for all jobs of this node."""
    global price_of
    price_of = given
    return 0


def cost(item, count):
    """Answer with the prices of the node."""
    return price_of[item] * count


def tell(status, node, job):
    """Note nodes that are ready; called on dispy's callback thread."""
    if status == dispy.DispyNode.Initialized:
        nodes[node.ip_addr] = node
        ready.set()


if __name__ == "__main__":
    prices = {"apple": 3, "pear": 4}
    nodes, ready = {}, threading.Event()
    with dispy.JobCluster(
        cost, nodes=[WithPrices("*")], setup=setup, cluster_status=tell
    ) as cluster:
        print("five apples cost", cluster.submit("apple", 5).get())
        prices["apple"] = 7
        ready.clear()
        for node in list(nodes.values()):
            cluster.resetup_node(node)
        print("five apples cost", cluster.submit("apple", 5).get(), "now")
