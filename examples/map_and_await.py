"""Results as a stream, as they end, and in a program built on asyncio."""

import asyncio
import sys


def cube(number):
    """Raise for what cannot be cubed, to show where that comes out."""
    if number == 5:
        raise ValueError("five is right out")
    return number**3


async def in_asyncio(cluster):
    """Wait for jobs as for anything else in asyncio."""
    print("awaited:", await asyncio.gather(*[cluster.submit(number) for number in range(4)]))


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with dispy.JobCluster(cube) as cluster:
        results = cluster.map(range(count))
        while True:
            try:
                print(next(results), end=" ")
            except StopIteration:
                break
            except ValueError as error:  # its item failed; the next call goes on behind it
                print(f"({error})", end=" ")
        print()
        jobs = [cluster.submit(number) for number in range(3)]
        print("ended:", sorted(job.result for job in dispy.as_completed(jobs)))
        asyncio.run(in_asyncio(cluster))
