"""The table that `JobCluster.print_status` prints."""

from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster

_ROW = "{:>30} | {:>5} | {:>7} | {:>10} | {:>13} | {:>7} | {:>7}"


def _size(count: int) -> str:
    """Return a number of bytes in at most seven characters."""
    size, units = float(count), iter("BKMGTP")
    unit = next(units)
    while size >= 1000:
        size, unit = size / 1024, next(units)
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def print_table(cluster: "JobCluster", wall_time: float | None) -> None:
    """Print what each node has done; `wall_time` in seconds, None: since the cluster's start."""
    status = cluster.status()
    head = _ROW.format("Node", "CPUs", "Jobs", "Sec/Job", "Node Time Sec", "Sent", "Rcvd")
    lines = [head, "-" * len(head)]
    total = 0.0
    for node in status.nodes:
        total += node.cpu_time
        mean = node.cpu_time / node.jobs_done if node.jobs_done else 0.0
        name = f"{node.ip_addr} ({node.name})" if node.name else node.ip_addr
        times = f"{mean:.4g}", f"{node.cpu_time:.3f}"
        traffic = _size(node.tx), _size(node.rx)
        lines.append(_ROW.format(name[:30], node.cpus, node.jobs_done, *times, *traffic))
    exposed = [node.ip_addr for node in status.nodes if node.exposed]
    if exposed:
        lines.append(f"Not encrypted (insecure): {', '.join(exposed)}")
    wall = wall_time or time() - cluster.start_time
    lines.append("")
    if status.jobs_pending:
        lines.append(f"Jobs pending: {status.jobs_pending}")
    lines.append(
        f"Total job time: {total:.3f} sec, wall time: {wall:.3f} sec, "
        f"speedup: {total / wall if wall else 0:.3f}"
    )
    print("\n" + "\n".join(lines) + "\n")
