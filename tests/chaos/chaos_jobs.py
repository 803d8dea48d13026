"""What the jobs of the harness do. Goes to the nodes as a file, so it needs nothing of ours.

Each run of a job appends a line to a log outside of all nodes when it begins, and one when it
has come to its end; a line is one write to a file opened for appending, so that a process which
is killed at any instant has written all of it or nothing.
"""

import hashlib
import os
import signal
import time


def append(path, line):
    """Append a line, with the seconds of the clock that never jumps."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(log, f"{time.monotonic():.6f} {line}\n".encode())
    finally:
        os.close(log)


def argument_of(token, size):
    """Return `size` bytes that no other job has."""
    return hashlib.shake_128(token.encode()).digest(size)


def result_of(token, argument, size, attempt):
    """Return what a run must return."""
    digest = hashlib.sha256(argument).hexdigest()
    return token, attempt, digest, hashlib.shake_128(token[::-1].encode()).digest(size)


def released(log):
    """Return the file that lets lingering jobs end."""
    return log + ".released"


def work(log, token, seconds, argument, size, interim, deed):
    attempt = int(os.environ["DISPY_ATTEMPT"])
    append(log, f"begin {token} {attempt} {dispy_node_name} {os.getpid()}")  # noqa: F821
    for number in range(interim):
        dispy_provisional_result((attempt, number))  # noqa: F821
        time.sleep(seconds / interim)
    if not interim:
        time.sleep(seconds)
    while deed == "linger" and not os.path.exists(released(log)):
        time.sleep(0.05)
    if deed == "crash" or (deed == "crash once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGSEGV if len(token) % 2 else signal.SIGKILL)
    if deed == "raise":
        append(log, f"end {token} {attempt}")
        raise ValueError(token)
    result = result_of(token, argument, size, attempt)
    append(log, f"end {token} {attempt}")
    return result
