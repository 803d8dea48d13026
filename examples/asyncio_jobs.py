"""Await jobs in asyncio: the event loop goes on while nodes work."""

import asyncio


def slow_square(n):
    """Return a square, after a while."""
    import time

    time.sleep(0.05)
    return n * n


async def main():
    """Submit some jobs, and do something else until they are done."""
    import dispy

    with dispy.JobCluster(slow_square) as cluster:
        jobs = [cluster.submit(n) for n in range(6)]
        print("submitted", len(jobs), "jobs; now something else")
        await asyncio.sleep(0)
        print("squares:", await asyncio.gather(*jobs))


if __name__ == "__main__":
    asyncio.run(main())
