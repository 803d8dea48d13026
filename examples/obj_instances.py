"""Objects as arguments, as results and as names of jobs; what a job printed comes back too."""


class Order:
    """Something to be done, of a class that the nodes have never heard of."""

    def __init__(self, number, items):
        self.number, self.items = number, items
        self.total = None

    def __str__(self):
        return f"order {self.number}"


def price(order):
    """Compute an order's total on a node, and send the object back."""
    print("pricing", order)
    order.total = sum(len(item) for item in order.items)
    return order


if __name__ == "__main__":
    import dispy

    orders = [Order(1, ["tea", "milk"]), Order(2, ["bread"]), Order(3, [])]
    with dispy.JobCluster(price) as cluster:
        jobs = []
        for order in orders:
            job = cluster.submit(order)
            job.id = order  # any object
            jobs.append(job)
        for job in jobs:
            priced = job.get()
            print(f"{job.id} costs {priced.total}; the node printed: {job.stdout.strip()}")
