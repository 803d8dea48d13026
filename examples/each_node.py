"""Run a program once on each node, as nodes are found: here one that says what system it is."""

if __name__ == "__main__":
    import queue

    import dispy

    ready = queue.Queue()

    def tell(status, node, job):
        """Note each node that is ready for the program; called on dispy's callback thread."""
        if status == dispy.DispyNode.Initialized:
            ready.put(node)

    cluster = dispy.JobCluster("uname", cluster_status=tell)
    node = ready.get()  # the first; a program that waits for more would go on asking
    while True:
        job = cluster.submit_node(node, "-s", "-m")
        print(node.name, "is", job.get(), job.stdout.decode().strip())
        try:
            node = ready.get(timeout=0.2)
        except queue.Empty:
            break
    cluster.close()
