"""`recover_jobs`: the results of a program that died, from the nodes that have them."""

import logging
import os
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dispy.client.callbacks import Callbacks
from dispy.client.ending import undisturbed
from dispy.client.extras import take_extra
from dispy.client.hub import Hub
from dispy.client.job import DispyJob
from dispy.client.receiving import Receiving
from dispy.client.recording import NONE
from dispy.client.recovery_file import InUse, RecoveryFile, newest
from dispy.client.recovery_form import Content, KnownCluster, KnownNode, NoRecoveryFile, Program
from dispy.client.session import Session, get_session
from dispy.client.settings import client_credentials, client_settings
from dispy.client.speaking import set_level
from dispy.client.waiting import is_patched
from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.protocol.messages import Payload
from dispy.worker import inside

if TYPE_CHECKING:
    from dispy.scheduler.nodes import RemoteNode
    from dispy.scheduler.recovered import RecoveredNode
    from dispy.scheduler.recovery import Recovery

logger = logging.getLogger("dispy.client")


@dataclass(slots=True)
class Recovered:
    """What a recovery has brought."""

    path: str  # of the recovery file
    jobs: list[DispyJob]
    clusters: dict[int, str]  # the name of each job's cluster, by the job's id
    missing: list[str] = field(default_factory=list)  # sentences; empty: nothing is


Keep = Callable[[Recovered], object]


def recover_jobs(
    recover_file: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    terminate_pending: bool = False,
    *,
    secret: str = "",
    certfile: str | None = None,
    keyfile: str | None = None,
    cafile: str | None = None,
    insecure: bool | None = None,
    loglevel: int | None = None,
    keep: Callable[[list[DispyJob]], object] | None = None,
) -> list[DispyJob]:
    """Return the jobs that a program had at nodes when it died, once they have ended.

    recover_file: of that program; None: the newest `_dispy_*` of the current directory.
    timeout: seconds after which those that have not ended are left where they are, for another
        recovery; None: any time. Of these, jobs with a provisional result are returned too, with
        that status.
    terminate_pending: cancel what still runs then, or at once where there is no timeout.
    secret, certfile, keyfile, cafile, insecure: as for JobCluster; they are found in the same way.
    keep: called with the jobs before their nodes forget them. What it raises ends the recovery,
        and everything can be recovered again.

    Jobs that no node had are lost. A job has all that it had, but for its arguments; `id` is its
    number. Files that jobs send come to where their program ran. What is returned is forgotten by
    the nodes, and the file is removed once nothing is left to recover. A recovery that is
    interrupted has recovered nothing, and may be repeated. Without a file that can be read the
    reason is logged, and the list is empty.

    Raises DispyError where the program lives, or the secret is not known that it had.
    """

    def keep_jobs(recovered: Recovered) -> None:
        if keep is not None:
            keep(recovered.jobs)

    try:
        return recover(
            recover_file, timeout, terminate_pending, keep_jobs, loglevel, secret=secret or None,
            certfile=certfile, keyfile=keyfile, cafile=cafile, insecure=insecure,
        ).jobs  # fmt: skip
    except NoRecoveryFile as error:
        logger.error("%s", error)
        return []


def recover(
    path: str | os.PathLike[str] | None,
    timeout: float | None,
    terminate: bool,
    keep: Keep,
    loglevel: int | None = None,
    **arguments: Any,
) -> Recovered:
    """Recover as `recover_jobs` says; `arguments` are credentials, None where not given.

    Raises NoRecoveryFile too.
    """
    inside.refuse_to_open()
    chosen = client_settings(loglevel=loglevel)
    set_level(chosen["loglevel"], given=loglevel is not None)
    if timeout is not None and (isinstance(timeout, bool) or not timeout >= 0):
        raise DispyError(f"timeout is a number of seconds, not {timeout!r}")
    file = _open(path or chosen["recover_file"])
    is_over = False
    try:
        content = file.read()
        if content.damaged:
            logger.warning("%s: %d lines are damaged, and passed over", file.path, content.damaged)
        credentials = _credentials(file.path, content.program, arguments)
        recovered, content.nodes = _Recovering(content, credentials).run(
            file.path, timeout, terminate, keep
        )
        is_over = not content.nodes
        if not is_over:
            _rewrite(file, content)
    finally:
        file.close(remove=is_over)
    for line in recovered.missing:
        logger.warning("%s", line)
    return recovered


def _open(path: str | os.PathLike[str] | None) -> RecoveryFile:
    """Open the file that is meant; raises NoRecoveryFile and InUse."""
    if path is not None and path != NONE:
        return RecoveryFile.open(os.fspath(path))
    here, used = os.getcwd(), ""
    for found in newest(here):
        try:
            file = RecoveryFile.open(found)
        except InUse:  # this very program's, perhaps
            used = f"; {found} is in use"
        except NoRecoveryFile as error:
            logger.warning("%s", error)
        else:
            return file
    raise NoRecoveryFile(f"there is no recovery file, _dispy_..., in {here}{used}")


def _rewrite(file: RecoveryFile, content: Content) -> None:
    try:
        file.rewrite(content.lines())
    except OSError as error:
        logger.warning("%s cannot be written: %s", file.path, error.strerror)


def _credentials(path: str, program: Program, arguments: Mapping[str, Any]) -> Credentials:
    """Return what the program proved itself by, as far as it can be found again."""
    if program.certificate is not None and arguments.get("certfile") is None:
        said = program.certificate
        arguments = {
            **arguments, "certfile": said.certfile, "keyfile": said.keyfile,
            "cafile": said.cafile, "revoked": said.revoked,
        }  # fmt: skip
    found = client_credentials(**arguments)
    if program.secret and not found.secrets and program.secrets_file:
        found = client_credentials(**{**arguments, "secret_file": program.secrets_file})
    if program.secret and not found.secrets:
        raise DispyError(
            f"the program of {path} had a secret (from {program.secret}), and none is known here: "
            f"say secret=..., or put it into ~/.config/dispy/secret"
        )
    return replace(
        found,
        secrets=found.secrets if program.secret else (),
        certificate=found.certificate if program.certificate is not None else None,
        pair=program.pair,
    )


class _Everything(Container[int]):
    """The jobs whose files are taken: who offers one has been looked at."""

    def __contains__(self, job: object) -> bool:
        return True


class _Recovering:
    """One recovery: owns its greenlets on the hub of this program's session, and gets the jobs."""

    def __init__(self, content: Content, credentials: Credentials) -> None:
        self._session: Session = get_session()
        self._content, self._credentials = content, credentials
        self._final: dict[int, DispyJob] = {}
        self._died: set[int] = set()  # those of them whose process died
        self._interim: dict[int, DispyJob] = {}
        self._cluster_of: dict[int, str] = {}  # name, by the number of a job
        # What `Receiving` needs of whoever has the jobs.
        self.hub: Hub = self._session.hub
        self.disk: Callbacks = self._session.disk
        self.jobs: Container[int] = _Everything()
        self.clusters: Mapping[int, KnownCluster] = content.clusters
        self.receiving = Receiving(self)
        self._recovery: Recovery | None = None
        if is_patched():  # see `Hub`: no thread may wait for an import of the hub
            import dispy.scheduler.recovery  # noqa: F401

    def run(
        self, path: str, timeout: float | None, terminate: bool, keep: Keep
    ) -> tuple[Recovered, dict[str, KnownNode]]:
        """Return the jobs, and the nodes that still have something for another recovery."""
        try:
            recovery = self.hub.call(self._start)
            self.hub.call(recovery.gather, timeout, terminate)
            jobs = [*self._final.values(), *self._interim.values()]
            jobs.sort(key=lambda job: job._number)
            recovered = Recovered(path, jobs, self._cluster_of)
            recovered.missing = [line for node in recovery.nodes for line in _missing(node)]
            keep(recovered)
            with undisturbed():  # from here on it is handed out
                self.hub.call(recovery.part)
            left = [node for node in recovery.nodes if not node.is_done]
            if strange := _strange(recovery.nodes):
                recovered.missing.append(
                    f"none of its nodes knows the program of {path}: it had another certificate, "
                    f"or its zombie_interval is over. Remove the file if nothing is to come"
                )
                left += strange
            return recovered, {node.node_id: _known(node) for node in left}
        finally:
            with undisturbed():
                self.hub.call(self._stop)
                self.receiving.end()

    def _start(self) -> "Recovery":
        from dispy.scheduler.recovery import Place, Recovery

        program = self._content.program
        places = [
            Place(node.node_id, node.name, node.host, node.port, node.taken)
            for node in self._content.nodes.values()
        ]
        self._recovery = Recovery(program.identity, program.name, self._credentials, places, self)
        return self._recovery

    def _stop(self) -> None:
        if self._recovery is not None:
            self._recovery.stop()

    # -- what the recovery tells; on the hub

    def is_final(self, job: int) -> bool:
        """Whether this job's end was taken already."""
        return job in self._final

    def has_died(self, job: int) -> bool:
        """Whether that was the death of its process, after which it may have been run again."""
        return job in self._died

    def finished(
        self,
        cluster_id: int,
        node: "RemoteNode",
        jobs: Collection[int],
        starts: Collection[float],
        ends: Collection[float],
        results: Collection[Payload],
        extras: Mapping[int, dict[str, Any]],
    ) -> None:
        """Take jobs that have ended."""
        for at, (number, start, end, result) in enumerate(
            zip(jobs, starts, ends, results, strict=True)
        ):
            job = self._job(number, node)
            self._cluster_of[number] = self.clusters[cluster_id].name
            job.start_time, job.end_time, job._packed = start, end, result or None
            job.stdout = job.stderr = ""
            if at in extras:
                take_extra(job, extras[at], node.name, self._session.memory)
            else:
                job.status = Status.Finished
            died = at in extras and extras[at].get("died") is True
            (self._died.add if died else self._died.discard)(number)
            self._final[number] = job
            self._interim.pop(number, None)
        self.receiving.forget(list(jobs))

    def provisional(self, cluster_id: int, node: "RemoteNode", job: int, value: Payload) -> None:
        """Take the newest value of a job that goes on."""
        found = self._interim[job] = self._job(job, node)
        self._cluster_of[job] = self.clusters[cluster_id].name
        found.status, found._packed = Status.ProvisionalResult, value

    def abandoned(self, node: "RemoteNode", job: int, reason: str) -> None:
        """Take a job that has no end."""
        found = self._interim.pop(job) if job in self._interim else self._job(job, node)
        self._final[job] = found
        found.status, found.exception = Status.Abandoned, reason
        self.receiving.forget([job])

    def _job(self, number: int, node: "RemoteNode") -> DispyJob:
        job = DispyJob(number=number)
        job.submit_time, job.ip_addr = None, node.ip_addr
        return job


def _missing(node: "RecoveredNode") -> list[str]:
    """Say what is not there of a node."""
    lines = []
    if node.was_restarted:
        lines.append(
            f"{node.where} was restarted: what it ran for the program is lost; what it had stored "
            f"has been recovered"
        )
    if node.settled and node.held:
        lines.append(
            f"{node.where} has {len(node.held)} jobs that have not ended: recover again to get them"
        )
    elif not node.settled and not node.has_ended:
        lines.append(
            f"{node.where} did not answer ({node.given_up or node.trouble}): what it has is not "
            f"lost before its zombie_interval is over; recover again until then"
        )
    return lines


def _strange(nodes: "Sequence[RecoveredNode]") -> "list[RecoveredNode]":
    """Return those that are done and have never heard of the program, if no node has."""
    if any(node.knew for node in nodes):
        return []
    return [node for node in nodes if node.is_done and not node.was_restarted]


def _known(node: "RecoveredNode") -> KnownNode:
    node_id = node.node.node_id if node.node is not None else node.node_id
    return KnownNode(node_id, node.name, node.host, node.port, max(node.seen, node.taken))
