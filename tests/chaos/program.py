"""The client of a run: opens the clusters of a schedule, submits, and logs all that it is told.

As a program, it imports what clients use, without using it, and forks clients (`forks`).
"""

import functools
import importlib
import itertools
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos import chaos_jobs, forks
from chaos.plan import PROBE, PULSE_SECONDS, Cluster, Job, cluster_from

import dispy
from dispy.model.statuses import Status
from dispy.shipping.modules import own_modules

READY_SECONDS = 0.3  # in which a node may become ready for a job that is for it alone
PATIENCE = 60.0  # seconds for jobs to end, all faults being over; far more than it should need
USED = [  # by a client, in the end
    "dispy.client.session", "dispy.client.cluster", "dispy.client.discovery",
    "dispy.client.opening",
    "dispy.client.computation", "dispy.client.modules", "dispy.client.isolation",
    "dispy.client.remote", "dispy.client.shared",
    "dispy.net.proving", "dispy.scheduler.service", "dispy.shipping.byvalue", "dispy.shipping.code",
    "dispy.shipping.files", "dispy.shipping.source", "cloudpickle", "concurrent.futures.thread",
    "encodings.idna", "gevent.pool", "gevent.queue", "gevent.resolver.thread", "gevent.threadpool",
    "gevent.util", "uuid",
]  # fmt: skip


class Journal:
    """A log of what the client was told; a line, once written, outlives the client."""

    def __init__(self, path: str) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, what: str, *words: Any, **more: Any) -> None:
        """Append a line, in one write."""
        line = json.dumps([round(time.monotonic(), 6), what, *words, more])
        os.write(self._log, f"{line}\n".encode())


def clusters_of(orders: dict[str, Any]) -> list[Cluster]:
    """Return those of the schedule that lies in this file."""
    table = json.loads(Path(orders["schedule"]).read_text())
    return [cluster_from(cluster) for cluster in table["clusters"]]


class Client:
    """One run of a program; `orders` is what `town` sends."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.journal = Journal(orders["journal"])
        self.log, self.recover_file = orders["log"], orders["recover_file"]
        self.options = orders["options"]
        self.nodes = [tuple(node) for node in orders["nodes"]]
        self.clusters = clusters_of(orders)
        shared = json.loads(Path(orders["schedule"]).read_text())["scheduler"]
        self.scheduler = orders["scheduler"] if shared else None  # the host of the shared one
        self.calm = orders["calm"]  # a file that comes when all faults are over
        self.begun = time.monotonic()
        self.failed = False

    def run(self) -> None:
        """Run all lines of clusters side by side; returns when each cluster is closed."""
        lines: dict[int, list[Cluster]] = {}
        for cluster in self.clusters:
            lines.setdefault(cluster.line, []).append(cluster)
        threads = [threading.Thread(target=self._line, args=(line,)) for line in lines.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.journal.write("ended")

    def _line(self, plans: list[Cluster]) -> None:
        try:
            for plan in plans:
                Use(self, plan).run()
        except BaseException:
            self.failed = True
            self.journal.write("failed", traceback.format_exc())
            raise

    def sleep_until(self, at: float) -> None:
        """Return at this second of the run."""
        time.sleep(max(0.0, self.begun + at - time.monotonic()))


class Use:
    """One cluster, from its opening to its closing."""

    def __init__(self, client: Client, plan: Cluster) -> None:
        self.client, self.plan, self.journal = client, plan, client.journal
        self.planned: dict[str, Job] = {job.token: job for job in plan.jobs}
        self.jobs: dict[str, dispy.DispyJob] = {}
        self.numbers = itertools.count()  # of probes
        self.failure = ""  # of the last one that failed

    def run(self) -> None:
        """Submit each job at its time, cancel some, wait for all, close."""
        plan = self.plan
        cluster = self._open()
        self.journal.write("opened", plan.name)
        deeds = [(job.at, job.token, self._submit) for job in plan.jobs]
        deeds += [
            (j.cancel_at, j.token, self._cancel) for j in plan.jobs if j.cancel_at is not None
        ]
        for at, token, deed in sorted(deeds, key=lambda deed: deed[0]):
            self.client.sleep_until(at)
            deed(cluster, token)
        self._wait_for_calm(cluster)
        if plan.terminate is None:
            done = cluster.wait(PATIENCE)
            if not done:
                for token, job in self.jobs.items():
                    if not job.done:
                        self.journal.write("waits", token, job.why())
                        break
            closed = cluster.close(timeout=0.1, terminate=not done)
        else:
            closed = cluster.close(timeout=plan.terminate, terminate=True)
        for token, job in self.jobs.items():
            state = "set" if job.finish.is_set() else "not set"
            # A failure is looked at by this, so that the program does not tell it at its end.
            self.journal.write(
                "final", token, job.status.name, self._judged(job), finish=state,
                words=(job.exception or "")[-600:], node=job.ip_addr or "",
            )  # fmt: skip
        done = {node.name: node.jobs_done for node in cluster.status().nodes}
        self.journal.write("closed", plan.name, closed, done=done)

    def _open(self) -> Any:
        client, plan = self.client, self.plan
        options: dict[str, Any] = {
            "callback": self._told, "cluster_status": self._status, "reentrant": plan.reentrant,
            "retries": plan.retries, "isolation": plan.isolation, "pulse_interval": PULSE_SECONDS,
            **client.options,
        }  # fmt: skip
        if client.scheduler is not None:
            options["scheduler_host"] = client.scheduler
            return dispy.SharedJobCluster(chaos_jobs.work, **options)
        options |= {"nodes": client.nodes, "recover_file": client.recover_file}
        return dispy.JobCluster(chaos_jobs.work, **options)

    def _wait_for_calm(self, cluster: Any) -> None:
        """Return when all faults are over and every node has run a job, or is set aside.

        A node that cannot be reached when its cluster is closed hears of it only when it gives up
        its client, which would make each such run long.
        """
        while not os.path.exists(self.client.calm):
            time.sleep(0.05)
        lingering = [
            job for token, job in self.jobs.items() if self.planned[token].deed == "linger"
        ]
        if lingering and all(job.done for job in lingering):
            # Their nodes were lost, and have stopped them before they run anything more.
            self._reach_all(cluster, PATIENCE / 6)
        if lingering:
            Path(chaos_jobs.released(self.client.log)).touch()
        if missing := self._reach_all(cluster, PATIENCE):
            self.journal.write("missing", *sorted(missing), self.failure)

    def _reach_all(self, cluster: Any, within: float) -> set[str]:
        """Have every node run a job; return those that have not, after so many seconds."""
        deadline = time.monotonic() + within
        missing = {host for host, _ in self.client.nodes}
        while missing and time.monotonic() < deadline:
            nodes = cluster.status().nodes
            missing -= {node.ip_addr for node in nodes if node.error}
            there = {node.ip_addr for node in nodes if node.cpus} & missing
            probes = {host: self._probe(cluster, host) for host in there}
            for host, job in probes.items():
                if job is None:
                    continue
                if job.wait(within) and job.status == Status.Finished:
                    missing.discard(host)
                else:
                    self.failure = f"{job.status.name} {job.exception or job.why()}"
            time.sleep(0.1 if missing else 0.0)
        return missing

    def _probe(self, cluster: Any, host: str) -> Any:
        """Submit a job for one node; None while the cluster does not have that."""
        token = f"{PROBE}-{self.plan.name}-{next(self.numbers)}"
        return cluster.submit_job_id_node(token, host, self.client.log, token, 0.0, b"", 0, 0, "")

    def _submit(self, cluster: Any, token: str) -> None:
        plan = self.planned[token]
        argument = chaos_jobs.argument_of(token, plan.argument)
        options = {} if plan.retries is None else {"dispy_job_retries": plan.retries}
        submit = cluster.submit_job_id
        if plan.node is not None:
            host, _ = self.client.nodes[plan.node]
            submit = functools.partial(_submit_to, cluster, host)
        self.journal.write("submit", token)
        job = submit(
            token, self.client.log, token, plan.seconds, argument, plan.result, plan.interim,
            plan.deed, **options,
        )  # fmt: skip
        if job is None:
            self.journal.write("refused", token)  # its node is not there
            return
        self.jobs[token] = job
        self.journal.write("number", token, job._number)

    def _cancel(self, cluster: Any, token: str) -> None:
        self.journal.write("cancel", token, cluster.cancel(self.jobs[token]))

    def _told(self, job: Any) -> None:
        if job.id not in self.planned:
            return
        if job.status == dispy.DispyJob.ProvisionalResult:
            self.journal.write("interim", job.id, *job.result)
        else:
            self.journal.write("told", job.id, job.status.name, self._judged(job))

    def _status(self, status: int, node: Any, job: Any) -> None:
        name = getattr(node, "name", "")
        if job is not None and job.id in self.planned:
            self.journal.write("status", job.id, Status(status).name, name)
        elif status in (Status.Initialized, Status.Closed):
            words = getattr(node, "error", None) or ""
            self.journal.write("node", name, Status(status).name, words=words)

    def _judged(self, job: Any) -> str:
        return judge(job, self.planned[job.id]) if job.status == Status.Finished else ""


def _submit_to(cluster: Any, host: str, token: str, *arguments: Any, **options: Any) -> Any:
    """Submit a job for one node; None where that is not there in time."""
    deadline = time.monotonic() + READY_SECONDS
    while (job := cluster.submit_job_id_node(token, host, *arguments, **options)) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    return job


class Recovery:
    """A program that gets what a killed client was owed."""

    failed = False

    def __init__(self, orders: dict[str, Any]) -> None:
        self.journal, self.path = Journal(orders["journal"]), orders["recover_file"]
        self.options = orders["options"]
        self.planned = {job.token: job for plan in clusters_of(orders) for job in plan.jobs}

    def run(self) -> None:
        """Recover, and log what comes, before the nodes forget it."""
        self.journal.write("recovering")
        dispy.recover_jobs(self.path, keep=self._keep, **self.options)
        left = os.path.exists(self.path)
        self.journal.write("recovery", "left its file" if left else "is over")

    def _keep(self, jobs: list[Any]) -> None:
        for job in jobs:
            # Of its own it has no token; of others than these its number tells it.
            token = job.result[0] if job.status == Status.Finished else ""
            plan = self.planned.get(token)
            judged = "" if plan is None else judge(job, plan)
            words = (job.exception or "")[-600:]
            self.journal.write("recovered", job.id, job.status.name, token, judged, words=words)


def judge(job: Any, plan: Job) -> str:
    """Say whether a result is right: the number of the run that has returned it, or what is wrong
    with it."""
    argument = chaos_jobs.argument_of(plan.token, plan.argument)
    attempt = job.result[1]
    right = chaos_jobs.result_of(plan.token, argument, plan.result, attempt)
    return f"run {attempt}" if job.result == right else f"wrong: {job.result!r:.200}"


def become(orders: dict[str, Any]) -> int:
    """Be the client of a run; return its exit status."""
    os.chdir(orders["place"])
    client = Recovery(orders) if orders["recovers"] else Client(orders)
    client.run()
    return int(client.failed)


if __name__ == "__main__":
    for name in USED:
        importlib.import_module(name)
    own_modules(["chaos"])  # it keeps which files they import
    forks.serve(int(sys.argv[1]), become)
