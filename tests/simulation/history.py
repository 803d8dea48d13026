"""What really happened to each job of one owner; every method is a promise that can be broken."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from dispy.model.statuses import Status

DEATHS = 3  # of its process after which a reentrant job is stopped, as the documentation says


@dataclass(frozen=True)
class Job:
    """What its owner has asked for."""

    cluster: int
    kind: str = "works"  # "fails": at once; "kills": its process; "endless": until it is stopped
    reentrant: bool = False
    retries: int | None = None
    pin: str | None = None  # the one node that it may run on


class History:
    """Of one owner, dead or alive; nodes and owner tell it what they see."""

    def __init__(self) -> None:
        self.submitted: dict[int, Job] = {}
        self.final: dict[int, Status] = {}
        self.closed: set[int] = set()  # clusters
        self.starts: Counter[int] = Counter()
        self.attempts: dict[int, set[int]] = defaultdict(set)  # that its runs were told they are
        self.deaths: Counter[int] = Counter()  # of the process that ran it
        self.losses: Counter[int] = Counter()  # of the node that had it
        self.failed: set[int] = set()  # some run of them has raised
        self.cancelled: set[int] = set()
        self.sent: dict[int, list[int]] = defaultdict(list)  # values before their job's end
        self.came: dict[int, list[int]] = defaultdict(list)
        self.recovered = False  # its program died, and another one took what there was

    # -- what the owner tells

    def submit(self, number: int, job: Job) -> None:
        self.submitted[number] = job

    def send(self, number: int) -> None:
        job = self.submitted[number]
        assert job.cluster not in self.closed, f"{self.tell(number)} is sent, and is closed"
        assert number not in self.final, f"{self.tell(number)} is sent, and is final"
        assert number not in self.cancelled, f"{self.tell(number)} is sent, and is cancelled"

    def lost(self, number: int) -> None:
        self.losses[number] += 1

    def close(self, cluster: int) -> None:
        self.closed.add(cluster)

    def value(self, number: int, value: int) -> None:
        assert number not in self.final, f"{self.tell(number)} ends, and then sends a value"
        assert value not in self.came[number], f"{self.tell(number)} sends a value twice"
        self.came[number].append(value)

    def end(self, number: int, status: Status) -> None:
        job, told = self.submitted[number], self.tell(number)
        assert number not in self.final, f"{told} ends a second time: {status.name}"
        assert job.cluster not in self.closed, f"{told} is closed, and ends: {status.name}"
        self.final[number] = status
        cut_short = self.deaths[number] > 0
        if status == Status.Finished:
            assert self.starts[number], f"{told} has a result and never ran"
            assert job.kind == "works", f"{told} cannot have a result"
            if self.starts[number] == 1 and not self.losses[number] and not self.recovered:
                sent, came = self.sent[number], self.came[number]
                assert came == sent, f"{told} has sent {sent}, and {came} came"
        elif status == Status.Terminated:
            failed = number in self.failed
            assert cut_short or failed, f"{told} was terminated by nobody"
            endured = failed or number in self.cancelled or job.retries is not None
            if job.reentrant and job.pin is None and not (endured or self.recovered):
                assert self.deaths[number] >= DEATHS, f"{told} was stopped too early"
        elif status == Status.Cancelled:
            asked = number in self.cancelled or job.pin is not None
            assert asked, f"{told} was cancelled by nobody"

    # -- what nodes tell

    def start(self, number: int, node: str, attempt: int) -> None:
        job = self.submitted[number]
        self.starts[number] += 1
        told = self.tell(number)
        assert job.pin in (None, node), f"{told} ran on {node}"
        most = 1 + self.deaths[number] + self.losses[number]
        if job.retries is not None:
            most = min(most, 1 + job.retries)
        elif not job.reentrant:
            most = 1
        assert self.starts[number] <= most, f"{told} ran more often than {most} times"
        seen = self.attempts[number]
        assert attempt not in seen, f"{told} was told twice that it is attempt {attempt}"
        seen.add(attempt)

    def die(self, number: int) -> None:
        self.deaths[number] += 1
        most = DEATHS + self.losses[number]  # a lost node may still run it
        assert self.deaths[number] <= most or self.submitted[number].retries is not None, (
            f"{self.tell(number)} took down {self.deaths[number]} processes"
        )

    # -- what is looked at

    def tell(self, number: int) -> str:
        """Return a job in words."""
        job = self.submitted[number]
        rule = "reentrant" if job.reentrant else "not reentrant"
        rule += "" if job.retries is None else f", retries={job.retries}"
        rule += "" if job.pin is None else f", pinned to {job.pin}"
        past = f"{self.starts[number]} starts, {self.deaths[number]} deaths"
        past += f", {self.losses[number]} losses" if self.losses[number] else ""
        past += ", cancelled" if number in self.cancelled else ""
        past += f", {self.final[number].name}" if number in self.final else ""
        return f"job {number} ({job.kind}, {rule}; {past})"

    def missing(self) -> list[int]:
        """Return the jobs that must still end."""
        final, closed = self.final, self.closed
        return [
            n for n, job in self.submitted.items() if n not in final and job.cluster not in closed
        ]

    def at_quiet(self) -> None:
        """Everything is over: nothing may be missing, and little may have failed."""
        if self.recovered:
            return  # what never reached a node died with the program
        missing = self.missing()
        assert not missing, f"{len(missing)} without an end, as {self.tell(missing[0])}"
        for number, status in self.final.items():
            job = self.submitted[number]
            must_run = job.reentrant and job.retries is None and job.pin is None
            if must_run and number not in self.cancelled:
                told = self.tell(number)
                assert status != Status.Abandoned, f"{told} was given up"
                assert self.starts[number], f"{told} never ran"
