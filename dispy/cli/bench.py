"""Measure how fast dispy is here, and compare it with its budget.

Usage:
  dispy bench [--nodes=<hosts> | --secret] [--only=<rows>] [--rounds=<n>] [--quick] [--json]
  dispy bench (-h | --help)

Options:
  --nodes=<hosts>  the nodes to measure: names, addresses or patterns, with commas between them;
                   without it any that answer, and where none does a node of its own
  --secret         measure what a shared secret costs: two nodes on this machine, with a secret and
                   without, and pyOpenSSL alone between two processes
  --only=<rows>    only these rows, with commas between them: %s;
                   with --secret: jobs, jobs-secret, jobs-ratio, bulk, bulk-openssl, bulk-secret,
                   bulk-ratio, link, link-secret
  --rounds=<n>     how often to measure each; the median counts [default: 5]
  --quick          fewer and smaller jobs: a first impression
  --json           print a JSON object and nothing else
  -h, --help       print this text

The budget is what dispy promises on two idle processors with a node of its own. Figures mean
something on a machine that does nothing else; where it does, look at the spread.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from docopt import docopt

from dispy import JobCluster
from dispy.cli import measurements
from dispy.cli.figures import Probes, Row, keys_of, measure, rounds_of, show, wanted_keys
from dispy.cli.jobs import give_back, sleep
from dispy.cli.measurements import Contender, NotMeasured, contender_of
from dispy.cli.progress import Progress

MIB = 1024 * 1024
QUICK = 10  # times fewer jobs


class Bench:
    """The clusters that are measured; a row opens what it needs. A context manager."""

    def __init__(self, nodes: Sequence[str] | None, quick: bool) -> None:
        self.nodes, self.quick = nodes, quick
        self._stack = ExitStack()
        self._contenders: dict[Any, Contender] = {}
        self._clusters: list[JobCluster] = []

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *how: Any) -> None:
        self._stack.__exit__(*how)

    def count(self, full: int) -> int:
        """Return how many jobs to measure with."""
        return full // QUICK if self.quick else full

    def contender(self, function: Callable[..., Any] = give_back) -> Contender:
        """Return a cluster of this function, opened once and ready."""
        if function not in self._contenders:
            cluster = self._stack.enter_context(JobCluster(function, self.nodes, loglevel=30))
            self._clusters.append(cluster)
            self._contenders[function] = contender_of(cluster)
        return self._contenders[function]

    def describe_nodes(self) -> list[dict[str, Any]]:
        """Return what the nodes are that have been used."""
        nodes = [node for cluster in self._clusters for node in cluster.status().nodes]
        found = {(node.name, node.ip_addr): node.cpus for node in nodes}
        return [{"name": n, "ip_addr": a, "cpus": cpus} for (n, a), cpus in found.items()]


# -- the probes: each measures one round of its rows


def _small_jobs(bench: Bench) -> tuple[float, ...]:
    return (measurements.jobs_per_second(bench.contender(), bench.count(100_000)),)


def _cpu(bench: Bench) -> tuple[float, ...]:
    contender, count = bench.contender(), bench.count(100_000)
    before = measurements.cpu_seconds()
    measurements.jobs_per_second(contender, count)
    return ((measurements.cpu_seconds() - before) / count * 1e6,)


def _map(bench: Bench) -> tuple[float, ...]:
    return (measurements.calls_per_second(bench.contender(), bench.count(2_000_000)),)


def _round_trip(bench: Bench) -> tuple[float, ...]:
    middle, late = measurements.round_trips(bench.contender(), bench.count(2000))
    return middle * 1e3, late * 1e3


def _submit(bench: Bench) -> tuple[float, ...]:
    return (measurements.submit_seconds(bench.contender(), bench.count(50)) * 1e6,)


def _memory(bench: Bench) -> tuple[float, ...]:
    return (measurements.queued_bytes_afresh(bench.nodes, bench.count(200_000)),)


def _bytes(bench: Bench) -> tuple[float, ...]:
    size = (16 if bench.quick else 64) * MIB
    return (measurements.bytes_per_second(bench.contender(), b"\xa5" * size, size) / 1e6,)


def _numpy(bench: Bench) -> tuple[float, ...]:
    try:
        import numpy
    except ImportError:
        raise NotMeasured("NumPy is not installed") from None
    size = (16 if bench.quick else 64) * MIB
    array = numpy.full(size // 8, 1.5)
    return (measurements.bytes_per_second(bench.contender(), array, size) / 1e6,)


def _ten_milliseconds(bench: Bench) -> tuple[float, ...]:
    return (measurements.efficiency(bench.contender(sleep), 0.01, bench.count(200)),)


def _first_result(bench: Bench) -> tuple[float, ...]:
    return (measurements.first_result_seconds(bench.nodes),)


def _import(bench: Bench) -> tuple[float, ...]:
    return (measurements.import_seconds() * 1e3,)


PROBES: Probes[Bench] = [
    ((Row("jobs", "no-op jobs one by one", "jobs/s", 100_000, True),), _small_jobs),
    ((Row("cpu", "processor time of one", "us", 20, False, 1),), _cpu),
    ((Row("map", "map over a range", "calls/s", 1_000_000, True),), _map),
    (
        (
            Row("trip", "round trip, median", "ms", 0.26, False, 3),
            Row("trip90", "round trip, 90 % within", "ms", None, False, 3),
        ),
        _round_trip,
    ),
    ((Row("submit", "submit of a small job", "us", 6, False, 2),), _submit),
    ((Row("memory", "client, a queued job", "bytes", 700, False),), _memory),
    ((Row("bytes", "64 MiB there and back", "MB/s", 1000, True),), _bytes),
    ((Row("numpy", "the same, NumPy", "MB/s", 4000, True),), _numpy),
    ((Row("10ms", "10 ms jobs, efficiency", "", 0.97, True, 3),), _ten_milliseconds),
    ((Row("first", "start to first result", "s", 0.5, False, 3),), _first_result),
    ((Row("import", "import dispy, JobCluster", "ms", 60, False, 1),), _import),
]
KEYS = keys_of(PROBES)
__doc__ %= ", ".join(KEYS)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 0, whatever the figures are."""
    options = docopt(__doc__, argv=list(arguments))
    rounds = rounds_of(options["--rounds"])
    progress = Progress(quiet=options["--json"])
    if options["--secret"]:
        from dispy.cli.protection import measure_protection

        measured, used = measure_protection(options["--only"], rounds, options["--quick"], progress)
    else:
        wanted = wanted_keys(options["--only"], PROBES)
        nodes = options["--nodes"].split(",") if options["--nodes"] else None
        with Bench(nodes, options["--quick"]) as bench:
            measured = list(measure(PROBES, bench, wanted, rounds, progress))
            used = bench.describe_nodes()
    progress.clear()
    show(measured, used, options["--json"])
    return 0
