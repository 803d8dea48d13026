"""How many jobs a worker gets at once, and which: a part of the execution core, and as pure."""

from dispy.execution.records import Computation, JobNumber, Worker

PACKET_SECONDS = 0.004  # of work in one packet for a worker, by measured duration
PACKET_JOBS = 256  # however short they are: what one packet may delay
PACKETS_AHEAD = 2  # so that a worker never waits for the node
ALONE_SECONDS = 0.02  # a job as long as this is worth a worker that waits 0.2 ms for the next
SHORTEST = 5e-6  # seconds; what a job costs a worker at least


def packet_size(worker: Worker, left: int, slots: int) -> int:
    """Return how many jobs to send to a worker, which may get `left` more in its life.

    A single one while durations are unknown, or where each is watched. Less than 1: none.
    """
    computation, ahead = worker.computation, 1
    duration = computation.duration
    if duration is not None and duration < ALONE_SECONDS and not computation.alone:
        packet = int(PACKET_SECONDS / max(duration, SHORTEST))
        ahead = max(1, min(PACKET_JOBS, packet)) * PACKETS_AHEAD
    waits = computation.waiting_count
    share = -(-waits // max(1, slots))  # leave some to the others
    return min(ahead - len(worker.jobs), max(share, 1), waits, left)


def take_waiting(computation: Computation, size: int) -> list[JobNumber]:
    """Take the first `size` waiting jobs, passing over those that were taken back."""
    waiting = computation.waiting
    if len(waiting) == computation.waiting_count:
        jobs = [waiting.popleft() for _ in range(size)]
    else:
        taken: dict[JobNumber, None] = {}
        blocked = computation.blocked  # one may have waited here before it was called back
        while len(taken) < size:
            job = waiting.popleft()
            if computation.jobs.get(job, computation) is None and job not in blocked:
                taken[job] = None  # once, though it may stand there twice
        jobs = list(taken)
    computation.waiting_count -= size
    return jobs
