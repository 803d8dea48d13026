"""Which results a program has asked for, of a cluster that others may attach to.

A result that was delivered may never be looked at: its program is killed, or only submits. So the
scheduler keeps it until the program asks, by the job's `result` or `exception`, which `job()` and
`get` read too. It is told of that, and of what the program calls its jobs (`id`), in bursts.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispy.client.job import DispyJob
from dispy.model.statuses import FINAL
from dispy.protocol.messages import Kind
from dispy.shipping.payloads import CannotPack, pack, unpack

if TYPE_CHECKING:
    from dispy.client.attachable import AttachableSession

logger = logging.getLogger("dispy.client")

LABEL_LIMIT = 512  # bytes of an `id`; the scheduler takes no longer one
LABELS_AT_ONCE = 2048  # in one message


class KeptJob(DispyJob):
    """A job of such a cluster, which says what its program asks for."""

    __slots__ = ()

    @property
    def id(self) -> Any:
        """What the program calls it: any object, a number until it is set."""
        return _ID.__get__(self)

    @id.setter
    def id(self, value: Any) -> None:
        _ID.__set__(self, value)
        cluster = getattr(self, "_cluster", None)  # which it has from when it is submitted
        if cluster is not None:
            cluster._session.collecting.named(self)

    @property
    def result(self) -> Any:
        """As `DispyJob.result`."""
        self._collect()
        return _RESULT.__get__(self)

    @result.setter
    def result(self, value: Any) -> None:
        _RESULT.__set__(self, value)

    @property
    def exception(self) -> str | None:
        """As `DispyJob.exception`."""
        self._collect()
        text: str | None = _EXCEPTION.__get__(self)
        return text

    @exception.setter
    def exception(self, text: str | None) -> None:
        _EXCEPTION.__set__(self, text)

    def _collect(self) -> None:
        if self.status in FINAL and self._cluster is not None:
            self._cluster._session.collecting.asked(self._number)


_ID: Any = DispyJob.__dict__["id"]
_RESULT: Any = DispyJob.__dict__["result"]
_EXCEPTION: Any = DispyJob.__dict__["exception"]


class Collecting:
    """Of one session; on its hub, where nothing else is said."""

    def __init__(self, session: "AttachableSession") -> None:
        self._session = session
        self._told: dict[int, int] = {}  # by job, the number of what told its end
        self._asked: deque[int] = deque()
        self._named: deque[DispyJob] = deque()
        self._announced = False

    def told(self, number: int, jobs: Sequence[int]) -> None:
        """Take note of what tells how jobs have ended, before they do."""
        kept = self._session.jobs
        here = [job for job in jobs if job in kept]  # others were left to the scheduler just now
        if all(isinstance(kept[job], KeptJob) for job in here):
            self._told.update(dict.fromkeys(here, number))
        else:  # chunks of `map`, which are for this program alone
            self._say(Kind.COLLECTED, [[number]])

    def asked(self, job: int) -> None:
        """Take note, in any thread, that the program has a job's result now."""
        if job in self._told:
            self._asked.append(job)
            self._announce()

    def named(self, job: DispyJob) -> None:
        """Take note, in any thread, of what the program calls a job."""
        self._named.append(job)
        self._announce()

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            self._session.hub.post(self.tell)

    def tell(self) -> None:
        """Tell the scheduler all that is new."""
        self._announced = False
        named = [self._named.popleft() for _ in range(len(self._named))]
        if named:
            named[0]._cluster._take_fresh()  # the scheduler must know them first
            self.label(named)
        asked = [self._asked.popleft() for _ in range(len(self._asked))]
        numbers = [self._told.pop(job) for job in dict.fromkeys(asked) if job in self._told]
        if numbers:
            self._say(Kind.COLLECTED, [numbers])

    def label(self, jobs: Sequence[DispyJob]) -> None:
        """Tell what the program calls jobs."""
        labels = []
        for job in jobs:
            packed = _packed(job)
            if packed is not None:
                labels.append([job._number, packed])
        for first in range(0, len(labels), LABELS_AT_ONCE):
            part = labels[first : first + LABELS_AT_ONCE]
            self._say(Kind.LABEL, [jobs[0]._cluster._number, part])

    def _say(self, kind: int, body: list[Any]) -> None:
        self._session.remote.say(kind, body)


def _packed(job: DispyJob) -> bytes | None:
    try:
        packed = pack(job.id, f"the id of job {job._number}")
    except CannotPack as error:
        why = str(error)
    else:
        if isinstance(packed, bytes) and len(packed) <= LABEL_LIMIT:
            return packed
        why = f"it has more than {LABEL_LIMIT} bytes"
    logger.warning("whoever attaches will not see the id of job %d: %s", job._number, why)
    return None


def id_of(label: bytes, number: int) -> Any:
    """Return what another program has called a job."""
    try:
        return unpack(label)
    except BaseException as error:  # foreign code: the id's own class
        logger.warning("the id of job %d could not be rebuilt: %r", number, error)
        return number
