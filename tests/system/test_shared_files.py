"""Files and large values go through a shared scheduler as a program's own scheduler sends them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from other_pythons import OWN, ROOT, interpreter, others
from system.conftest import DEADLINE, Gate
from system.schedulers import RunningScheduler, wait_until_running
from system.shared_run import shared_program

from dispy import DispyJob, SharedJobCluster

# Else this module would go along, and what it imports is not for a node.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LARGE = 3 * 1024 * 1024 + 7  # bytes: some pieces and a part of one


@pytest.fixture
def open_shared(start_scheduler: Callable, open_shared: Callable) -> Callable:
    """Open clusters that are closed before their scheduler is killed: then nobody waits for it."""
    return open_shared


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def scheduler(start_scheduler: Callable, start_node: Callable) -> RunningScheduler:
    """A scheduler with one node."""
    started: RunningScheduler = start_scheduler(start_node("--cpus=2"))
    return started


Open = Callable[..., SharedJobCluster]


def read(name: str, ran: str = "/dev/null") -> str:
    with open(name) as file, open(ran, "w"):
        return file.read()


def length(value: bytes, ran: str = "/dev/null") -> int:
    with open(ran, "w"):
        return len(value)


def hold_and_read(gate: str, name: str) -> str:
    with open(gate, "rb", buffering=0) as held:
        held.read(1)
    with open(name) as file:
        return file.read()


def hold(gate: str) -> None:
    with open(gate, "rb", buffering=0) as held:
        held.read(1)


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def fetched(cluster: SharedJobCluster) -> int:
    """Return how many bytes of contents the scheduler has got over the newest link."""
    sender = cluster._session.scheduler._files._sender
    return 0 if sender is None else sender.sent_bytes


def brought(tmp_path: Path) -> list[str]:
    """Return what clients have brought to the scheduler of a test, and need."""
    return [path.name for path in (tmp_path / "scheduler-0" / "contents" / "marks").iterdir()]


# -- contents


def test_files_of_a_cluster_and_of_single_jobs_lie_where_jobs_run(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    (here / "for_all").write_text("of all")
    (here / "for_one").write_bytes(b"x" * LARGE)
    (here / "tree").mkdir()
    (here / "tree" / "leaf").write_text("of a tree")
    cluster = open_shared(scheduler, read, depends=["for_all", "tree"])
    jobs = [
        cluster.submit("for_one", dispy_job_depends=["for_one"]),
        cluster.submit("for_all"),
        cluster.submit("tree/leaf"),
    ]
    assert [job.get(DEADLINE) for job in jobs] == ["x" * LARGE, "of all", "of a tree"]


def test_modules_of_the_program_are_imported_on_the_nodes(
    open_shared: Open, scheduler: RunningScheduler, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "module_of_ours.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(here)
    import module_of_ours  # type: ignore[import-not-found]

    def ask() -> int:
        return module_of_ours.answer()  # type: ignore[no-any-return]

    assert open_shared(scheduler, ask, depends=[module_of_ours]).submit().get(DEADLINE) == 42


def test_a_value_that_was_put_goes_to_the_scheduler_once(
    open_shared: Open, scheduler: RunningScheduler
) -> None:
    cluster = open_shared(scheduler, length)
    put = cluster.put(bytes(LARGE))
    jobs = [cluster.submit(put) for _ in range(50)]
    assert {job.get(DEADLINE) for job in jobs} == {LARGE}
    assert LARGE <= fetched(cluster) < 1.01 * LARGE
    again = open_shared(scheduler, length)
    assert again.submit(again.put(bytes(LARGE))).get(DEADLINE) == LARGE
    assert fetched(cluster) < 1.02 * LARGE  # it was there, and this program has shown to have it


def test_a_content_that_has_come_is_there_while_the_program_is_away(
    open_shared: Open, scheduler: RunningScheduler, here: Path, gate: Gate, tmp_path: Path
) -> None:
    """A node asks for what its next job needs when the program cannot be asked any more."""
    second = here / "second"
    second.write_bytes(b"y" * LARGE)
    cluster = open_shared(scheduler, hold_and_read, nodes=None)
    other = open_shared(scheduler, hold)
    blocking = [other.submit(str(gate)) for _ in range(2)]
    for job in blocking:
        wait_until(lambda job=job: job.status == DispyJob.Running, "both processors to be taken")
    waiting = cluster.submit("/dev/null", "second", dispy_job_depends=[str(second)])
    wait_until(lambda: len(brought(tmp_path)) == 1, "its file to be with the scheduler")
    remote = cluster._session.scheduler
    remote.address = ("127.0.0.77", remote.address[1])  # where nobody answers
    cluster._session.hub.call(remote._link.close)
    second.unlink()
    gate.open(2)
    scheduler.wait_for("is away")
    time.sleep(0.5)
    remote.address = (scheduler.host, remote.address[1])
    assert waiting.get(DEADLINE) == "y" * LARGE


def test_a_transfer_goes_on_over_a_new_link(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    (here / "large").write_bytes(b"z" * 40_000_000)
    cluster = open_shared(scheduler, read, depends=["large"])
    remote = cluster._session.scheduler
    job = cluster.submit("large")
    cut = 0
    while cut < 3:
        before = fetched(cluster)
        wait_until(
            lambda before=before: job.status != DispyJob.Created or fetched(cluster) > before,
            "some pieces to be sent",
        )
        cluster._session.hub.call(lambda: remote._link and remote._link.close())
        cut += 1
    assert len(job.get(DEADLINE)) == 40_000_000


def test_jobs_whose_file_changes_before_it_is_sent_end_with_the_reason(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    (here / "large").write_bytes(b"z" * LARGE)
    (here / "good").write_text("good")
    cluster = open_shared(scheduler, read)
    remote = cluster._session.scheduler
    cluster._session.hub.call(lambda: remote._link and remote._link.close())
    job = cluster.submit("large", dispy_job_depends=["large"])
    (here / "large").write_bytes(b"a" * LARGE)
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Abandoned
    assert "changed while it was being sent" in job.exception
    assert cluster.submit("good", dispy_job_depends=["good"]).get(DEADLINE) == "good"


def test_what_does_not_fit_into_a_clients_part_is_refused_with_the_setting(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, here: Path
) -> None:
    scheduler = start_scheduler(start_node(), DISPY_CLIENT_DISK="1M")
    (here / "large").write_bytes(bytes(2_000_000))
    (here / "small").write_text("small")
    cluster = open_shared(scheduler, read)
    job = cluster.submit("large", dispy_job_depends=["large"])
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Abandoned
    assert "scheduler.client_disk" in job.exception
    assert cluster.submit("small", dispy_job_depends=["small"]).get(DEADLINE) == "small"
    for_all = open_shared(scheduler, read, depends=["large"])
    refused = for_all.submit("large")
    assert refused.wait(DEADLINE)
    assert "scheduler.client_disk" in refused.exception


def test_a_file_that_is_too_large_is_refused_either_way(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, here: Path
) -> None:
    def send(size: int) -> int:
        with open("made", "wb") as file:
            file.write(bytes(size))
        return dispy_send_file("made")  # type: ignore[name-defined, no-any-return]  # noqa: F821

    scheduler = start_scheduler(start_node(), options=["--max_file_size=1M"])
    (here / "large").write_bytes(bytes(2_000_000))
    cluster = open_shared(scheduler, read)
    job = cluster.submit("large", dispy_job_depends=["large"])
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Abandoned
    assert "'large': it has 2000000 bytes, and scheduler.max_file_size allows 1048576" in (
        job.exception
    )
    sending = open_shared(scheduler, send)
    assert sending.submit(1000).get(DEADLINE) == 0
    assert sending.submit(2_000_000).get(DEADLINE) == -1


def test_a_job_that_waits_for_its_file_says_so_and_can_be_cancelled(
    open_shared: Open, scheduler: RunningScheduler, here: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from dispy.shipping.contents import Content

    cluster = open_shared(scheduler, read)
    (here / "large").write_bytes(bytes(LARGE))
    goes_on = threading.Event()
    as_it_is = Content.read

    def slowly(self: Content, offset: int, length: int) -> Any:
        goes_on.wait(DEADLINE)
        return as_it_is(self, offset, length)

    monkeypatch.setattr(Content, "read", slowly)
    job = cluster.submit("large", dispy_job_depends=["large"])
    try:
        wait_until(lambda: "from its program" in job.why(), "the reason")
        wait_until(lambda: "from their program" in caplog.text, "a word to who waits")
        assert cluster.cancel(job) == 0
        assert job.status == DispyJob.Cancelled
    finally:
        goes_on.set()
    assert cluster.submit("/dev/null").get(DEADLINE) == ""


def test_what_jobs_need_outlives_the_scheduler_and_the_program_s_absence(
    open_shared: Open, scheduler: RunningScheduler, here: Path, gate: Gate, tmp_path: Path
) -> None:
    """Neither the program nor its files are there when the scheduler is begun again."""
    for name in ("for_all", "for_one"):
        (here / name).write_bytes(name[-3:].encode() * LARGE)
    other = open_shared(scheduler, hold)
    for job in [other.submit(str(gate)) for _ in range(2)]:
        wait_until_running(job)  # all processors are taken
    cluster = open_shared(scheduler, read, depends=["for_all"])
    put = cluster.put(bytes(LARGE))
    lengths = open_shared(scheduler, length)
    ran = here / "ran"
    ran.mkdir()
    waiting = [
        cluster.submit("for_all", str(ran / "1")),
        cluster.submit("for_one", str(ran / "2"), dispy_job_depends=["for_one"]),
        lengths.submit(put, str(ran / "3")),
    ]
    wait_until(lambda: len(brought(tmp_path)) == 3, "all of it to be with the scheduler")
    cluster._session.hub.call(cluster._session.settle)
    remote = cluster._session.scheduler
    remote.address = ("127.0.0.77", remote.address[1])  # where nobody answers
    cluster._session.hub.call(remote._link.close)
    scheduler.wait_for("is away")
    scheduler.kill()
    for name in ("for_all", "for_one"):
        (here / name).unlink()
    scheduler.start()
    gate.open(2)
    wait_until(lambda: len(list(ran.iterdir())) == 3, "all jobs to have run")
    remote.address = (scheduler.host, remote.address[1])
    assert waiting[0].get(DEADLINE) == "all" * LARGE
    assert waiting[1].get(DEADLINE) == "one" * LARGE
    assert waiting[2].get(DEADLINE) == LARGE
    assert fetched(cluster) == 0  # over the link to the second scheduler


def test_what_had_not_come_before_a_restart_comes_afterwards(
    open_shared: Open, scheduler: RunningScheduler, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dispy.shipping.contents import Content

    (here / "large").write_bytes(b"z" * LARGE)
    goes_on = threading.Event()
    as_it_is = Content.read

    def slowly(self: Content, offset: int, length: int) -> Any:
        if offset:
            goes_on.wait(DEADLINE)
        return as_it_is(self, offset, length)

    cluster = open_shared(scheduler, read, depends=["large"])
    monkeypatch.setattr(Content, "read", slowly)
    job = cluster.submit("large")
    try:
        wait_until(lambda: "from its program" in job.why(), "the reason")
        cluster._session.hub.call(cluster._session.settle)
        scheduler.kill()
        scheduler.start()
    finally:
        goes_on.set()
    assert job.get(DEADLINE) == "z" * LARGE


def test_nothing_that_clients_have_brought_stays_without_need(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, here: Path, tmp_path: Path
) -> None:
    scheduler = start_scheduler(start_node(), data=str(tmp_path / "data"), DISPY_STORE_SIZE="0")
    (here / "large").write_bytes(bytes(LARGE))
    cluster = open_shared(scheduler, length)
    contents = tmp_path / "data" / "contents"

    def kept() -> list[str]:
        return [path.name for path in contents.glob("*/*")]

    put = cluster.put(bytes(LARGE))
    jobs = [cluster.submit(put) for _ in range(5)]
    assert {job.get(DEADLINE) for job in jobs} == {LARGE}
    files = open_shared(scheduler, read, depends=["large"])
    assert len(files.submit("large").get(DEADLINE)) == LARGE
    wait_until(lambda: len(kept()) == 2, "one file and its mark")
    files.close()
    wait_until(lambda: not kept(), "nothing to be left")


# -- nodes with another Python


@pytest.mark.skipif(not others(), reason="there is no other Python here")
def test_a_node_with_another_python_runs_what_has_source(
    open_shared: Open, start_scheduler: Callable, start_node: Callable
) -> None:
    version = others()[0]
    node = start_node(python=interpreter(version), PYTHONPATH=str(ROOT))
    scheduler = start_scheduler(node)
    factor = 3

    def tell(function: Callable[[int], int], number: int) -> tuple[int, int]:
        import sys

        return sys.version_info[1], factor * function(number)

    cluster = open_shared(scheduler, tell)
    foreign = int(version.partition(".")[2])
    jobs = [cluster.submit(lambda n: n + 1, number) for number in range(20)]
    expected = [(foreign, 3 * (number + 1)) for number in range(20)]
    assert [job.get(DEADLINE) for job in jobs] == expected
    names: dict[str, Any] = {}
    exec("def made(n): return n", names)
    without = open_shared(scheduler, names["made"])
    job = without.submit(1)
    wait_until(lambda: "source" in job.why(), f"the reason: {job.why()}")
    assert "made" in job.why()


@pytest.mark.skipif(not others(), reason="there is no other Python here")
def test_every_kind_of_code_runs_on_every_python(
    start_scheduler: Callable, start_node: Callable, tmp_path: Path
) -> None:
    here = Path(__file__).parent
    versions = sorted([OWN, *others()])
    nodes = [
        start_node("--cpus=1", python=interpreter(version), PYTHONPATH=str(here))
        for version in versions
    ]
    program = tmp_path / "kinds_of_code.py"
    program.write_text(shared_program((here / "kinds_of_code.py").read_text()))
    ended = subprocess.run(
        [sys.executable, str(program), *(node.host for node in nodes)],
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(here)]),
            "DISPY_SCHEDULER": start_scheduler(*nodes).host,
        },
        capture_output=True, text=True, timeout=3 * DEADLINE,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = ended.stdout.splitlines()
    assert sorted(told) == [f"{OWN} to {version}: all as here" for version in versions]


# -- files while a cluster runs


def test_a_file_is_sent_to_one_node(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, here: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    nodes = [start_node("--cpus=1"), start_node("--cpus=1")]
    cluster = open_shared(start_scheduler(*nodes), read)
    for node in nodes:
        wait_until(lambda node=node: cluster._node_id(node.host), "the node to be ready")
    (here / "late").write_text("sent late")
    assert cluster.send_file("late", nodes[0].host) == 0
    assert cluster.submit_node(nodes[0].host, "late").get(DEADLINE) == "sent late"
    other = cluster.submit_node(nodes[1].host, "late")
    assert other.wait(DEADLINE)
    assert "No such file" in other.exception
    assert cluster.send_file("late", "127.0.0.99") == -1
    assert "no node '127.0.0.99' is ready" in caplog.text


# -- files that jobs send


def make_and_send(name: str, size: int, gate: str = "") -> int:
    if gate:
        with open(gate, "rb", buffering=0) as held:
            held.read(1)
    with open(name, "wb") as file:
        file.write(bytes(n % 251 for n in range(4096)) * (size // 4096 + 1))
        file.truncate(size)
    return dispy_send_file(name)  # type: ignore[name-defined, no-any-return]  # noqa: F821


def content(size: int) -> bytes:
    return (bytes(n % 251 for n in range(4096)) * (size // 4096 + 1))[:size]


def test_files_of_jobs_come_whole(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    cluster = open_shared(scheduler, make_and_send)
    sizes = [0, 1, LARGE, 20_000_000]
    jobs = [cluster.submit(f"file{size}", size) for size in sizes]
    for job, size in zip(jobs, sizes, strict=True):
        assert job.get(DEADLINE) == 0, job.stderr
        assert (here / f"file{size}").read_bytes() == content(size)
    assert not [path for path in here.iterdir() if "part" in path.name]


def test_a_file_of_a_job_waits_at_its_node_for_a_program_that_is_away(
    open_shared: Open, scheduler: RunningScheduler, here: Path, gate: Gate
) -> None:
    cluster = open_shared(scheduler, make_and_send)
    job = cluster.submit("late", LARGE, str(gate))
    wait_until(lambda: job.status == DispyJob.Running, "the job to run")
    remote = cluster._session.scheduler
    remote.address = ("127.0.0.77", remote.address[1])
    cluster._session.hub.call(remote._link.close)
    scheduler.wait_for("is away")
    gate.open()
    time.sleep(0.5)
    remote.address = (scheduler.host, remote.address[1])
    assert job.get(DEADLINE) == 0, job.stderr
    assert (here / "late").read_bytes() == content(LARGE)


def test_a_file_of_a_job_comes_whole_over_broken_links(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    cluster = open_shared(scheduler, make_and_send)
    remote = cluster._session.scheduler
    job = cluster.submit("large", 50_000_000)
    for _ in range(3):
        wait_until(
            lambda: (
                job.status not in (DispyJob.Created, DispyJob.Running)
                or any(each.taken for each in cluster._session.receiving.arriving.values())
            ),
            "some pieces to come",
        )
        cluster._session.hub.call(lambda: remote._link and remote._link.close())
    assert job.get(DEADLINE) == 0, job.stderr
    assert (here / "large").read_bytes() == content(50_000_000)
    assert os.listdir(here) == ["large"]


def test_a_file_of_a_job_comes_whole_over_a_scheduler_that_is_killed(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    cluster = open_shared(scheduler, make_and_send)
    arriving = cluster._session.receiving.arriving
    job = cluster.submit("large", 60_000_000)
    for _ in range(2):
        wait_until(
            lambda: (
                job.status not in (DispyJob.Created, DispyJob.Running)
                or any(each.taken for each in arriving.values())
            ),
            "some pieces to come",
        )
        scheduler.kill()
        scheduler.start()
    assert job.get(DEADLINE) == 0, job.stderr
    assert (here / "large").read_bytes() == content(60_000_000)
    assert os.listdir(here) == ["large"]


def test_a_file_is_sent_to_a_node_over_a_scheduler_that_is_killed(
    open_shared: Open, scheduler: RunningScheduler, here: Path
) -> None:
    cluster = open_shared(scheduler, read)
    assert cluster.submit("/dev/null").get(DEADLINE) == ""
    node = cluster.status().nodes[0]
    (here / "large").write_bytes(b"x" * 60_000_000)
    sent: list[int] = []
    sending = threading.Thread(target=lambda: sent.append(cluster.send_file("large", node)))
    before = fetched(cluster)
    sending.start()
    wait_until(lambda: fetched(cluster) > before or sent, "some pieces to be sent")
    scheduler.kill()
    scheduler.start()
    sending.join(DEADLINE)
    assert sent == [0]
    assert len(cluster.submit_node(node, "large").get(DEADLINE)) == 60_000_000
