"""The columns in which jobs go to a node and results come back."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dispy.net.link import Link
from dispy.protocol.messages import Kind, Payload, split_payloads

# Of payloads in one frame, unless a single job has more: a node that has no room for a frame has
# none for any job in it.
BATCH_BYTES = 1024 * 1024


def send_jobs(
    link: Link,
    cluster_id: int,
    jobs: Sequence[int],
    payloads: Sequence[Payload],
    options: Mapping[int, dict[str, Any]],
) -> None:
    """Send jobs in as few frames as their payloads allow; `options` of those that have some."""
    first = size = 0
    for at, payload in enumerate(payloads):
        length = len(payload)
        if options and jobs[at] in options:
            length += sum(map(_bytes_of, options[jobs[at]].get("files", ())))
        if size + length > BATCH_BYTES and at > first:
            _send(link, cluster_id, jobs[first:at], payloads[first:at], options)
            first, size = at, 0
        size += length
    _send(link, cluster_id, jobs[first:], payloads[first:], options)


def _bytes_of(entry: list[Any]) -> int:
    """Return about how many bytes an entry of a manifest takes."""
    return 64 + len(entry[0])


def _send(
    link: Link,
    cluster_id: int,
    jobs: Sequence[int],
    payloads: Sequence[Payload],
    options: Mapping[int, dict[str, Any]],
) -> None:
    column, buffers = split_payloads(payloads)
    extras = (
        [[at, options[job]] for at, job in enumerate(jobs) if job in options] if options else []
    )
    link.send(Kind.RUN, [cluster_id, list(jobs), column, extras], buffers)


def select(
    wanted: Collection[int], columns: Sequence[list[Any]], extras: Sequence[list[Any]]
) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return the rows of the `wanted` jobs, which the first column names, and their extras.

    A job that is named twice has its first row alone.
    """
    first = {job: at for at, job in reversed(list(enumerate(columns[0]))) if job in wanted}
    keep = sorted(first.values())
    place = {at: new for new, at in enumerate(keep)}
    kept = [[column[at] for at in keep] for column in columns]
    return kept, [[place[at], extra] for at, extra in extras if at in place]


def differing(
    options: Mapping[int, dict[str, Any]], jobs: Sequence[int], name: str
) -> dict[int, int]:
    """Return what these jobs say of themselves in one option, for those that do."""
    if not options:
        return {}
    return {job: options[job][name] for job in jobs if name in options.get(job, ())}
