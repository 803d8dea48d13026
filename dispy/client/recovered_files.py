"""Recovered jobs as files, for whoever has no program at hand that wants them."""

import csv
import os
import pickle
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from dispy.client.job import DispyJob
from dispy.client.recovering import Recovered
from dispy.model.errors import DispyError
from dispy.protocol.messages import Bulk, Payload
from dispy.shipping.payloads import unpack

TABLE = "jobs.csv"  # one line for each job, those of earlier recoveries included
_COLUMNS = ("job", "cluster", "status", "node", "started", "ended")
_PLAIN = (str, int, float, complex, bool, type(None))  # whose text says it all


def write_jobs(recovered: Recovered, directory: str) -> None:
    """Write a directory for each job; returns when the disk has all of it.

    A result that cannot be rebuilt here is written as it came. Raises DispyError.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        for job in recovered.jobs:
            _write_job(job, os.path.join(directory, str(job.id)))
        _add_to_table(recovered, os.path.join(directory, TABLE))
        if hasattr(os, "sync"):
            os.sync()  # once: to wait for each of very many files would take minutes
    except OSError as error:
        raise DispyError(
            f"results cannot be written to {directory} ({error.strerror}); nodes keep them: make "
            f"room, or name another directory, and recover again"
        ) from None


def _write_job(job: DispyJob, directory: str) -> None:
    os.makedirs(directory, exist_ok=True)
    for name in os.listdir(directory):  # of a recovery that was interrupted
        os.unlink(os.path.join(directory, name))
    if job._packed is not None:
        _write_result(job._packed, directory)
    texts = {"stdout.txt": job.stdout, "stderr.txt": job.stderr, "exception.txt": job.exception}
    for name, text in texts.items():
        if text:
            _write(directory, name, text)


def _write_result(packed: Payload, directory: str) -> None:
    try:
        value = unpack(packed)
    except BaseException:  # foreign code: the result's own classes
        parts: Sequence[Any] = (packed.pickled, *packed.beside) if isinstance(packed, Bulk) else ()
        _write(directory, "result.pickle", parts[0] if parts else packed)
        for number, part in enumerate(parts[1:], 1):  # for the `buffers` of pickle.loads
            _write(directory, f"result.buffer{number}", part)
        return
    whole = pickle.dumps(value, 5) if isinstance(packed, Bulk) else packed
    _write(directory, "result.pickle", whole)
    if type(value) in _PLAIN:
        _write(directory, "result.txt", f"{value}\n")


def _write(directory: str, name: str, content: Any) -> None:
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")
    with open(os.path.join(directory, name), "wb") as file:
        file.write(content)


def _add_to_table(recovered: Recovered, path: str) -> None:
    is_new = not os.path.exists(path)
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(_COLUMNS)
        for job in recovered.jobs:
            cluster = recovered.clusters.get(job.id, "")
            times = map(_time, (job.start_time, job.end_time))
            writer.writerow([job.id, cluster, job.status.name, job.ip_addr, *times])


def _time(seconds: float | None) -> str:
    """Return a time as ISO 8601 has it, of UTC; empty for none."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):  # a node's clock is anywhere
        return str(seconds)
