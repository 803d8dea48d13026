"""Files and directories reach the nodes, lie where they should, and go when they should."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from system.conftest import DEADLINE, Gate, RunningNode

from dispy import DispyError, DispyJob, JobCluster, NodeAllocate
from dispy.client import session as sessions

Open = Callable[..., JobCluster]

# Else this module would go along, and what it imports is not for a node.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def act(what: str, path: str = ".", other: str = "") -> Any:
    """Do one of several things in the directory where jobs run."""
    import os

    if what == "read":
        with open(path) as file:
            return file.read()
    if what == "list":
        found = [os.path.join(top, n) for top, _, names in os.walk(path) for n in names]
        return sorted(name.removeprefix("./") for name in found)
    if what == "status":
        status = os.stat(path)
        return status.st_mode & 0o7777, status.st_mtime_ns
    if what == "write":
        with open(path, "w") as file:
            return file.write(other)
    if what == "hold":  # at a gate, then read
        with open(other, "rb", buffering=0) as held:
            held.read(1)
        with open(path) as file:
            return file.read()
    return os.getcwd()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def open_here(open_cluster: Open, shared_node: RunningNode) -> Open:
    """Open clusters on a node process of its own."""

    def open_one(**options: object) -> JobCluster:
        return open_cluster(act, nodes=[shared_node.host], **options)

    return open_one


def fetched(node: RunningNode) -> int:
    """Return how many bytes of contents this program has sent to a node over its newest link."""
    scheduler = sessions.get_session().scheduler
    ids = [one.node_id for one in scheduler.nodes.values() if one.ip_addr == node.host]
    senders = [scheduler._supply._senders.get(node_id) for node_id in ids]
    return sum(sender.sent_bytes for sender in senders if sender is not None)


def result(job: DispyJob | None) -> Any:
    assert job is not None
    assert job.finish.wait(DEADLINE), job.why()
    assert job.exception is None, job.exception
    return job.result


def failure(job: DispyJob | None) -> str:
    assert job is not None
    assert job.finish.wait(DEADLINE), job.why()
    assert job.status == DispyJob.Terminated
    assert isinstance(job.exception, str)
    return job.exception


def eventually(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or path.name)
    return path


# -- for all jobs


def test_files_and_directories_lie_where_they_lay_with_mode_and_time(
    open_here: Open, here: Path
) -> None:
    write(here / "sub" / "tool").chmod(0o751)
    os.utime(here / "sub" / "tool", ns=(1, 1_600_000_000_123_456_789))
    write(here / "sub" / "tree" / "deep" / "leaf")
    other = write(here.parent / "other" / "elsewhere")
    cluster = open_here(depends=["sub/tool", Path("sub/tree"), str(other)])
    assert result(cluster.submit("list")) == ["elsewhere", "sub/tool", "sub/tree/deep/leaf", "tool"]
    assert result(cluster.submit("status", "sub/tool")) == (0o751, 1_600_000_000_123_456_789)
    assert [result(cluster.submit("read", name)) for name in ("tool", "elsewhere")] == [
        "tool", "elsewhere",
    ]  # fmt: skip


def test_a_job_may_write_what_came_along_and_others_get_the_file_as_it_was(
    open_here: Open, here: Path
) -> None:
    write(here / "data", "as sent")
    first, second = open_here(depends=["data"]), open_here(depends=["data"])
    result(first.submit("write", "data", "as changed"))
    assert result(first.submit("read", "data")) == "as changed"
    assert result(second.submit("read", "data")) == "as sent"
    assert result(open_here(depends=["data"]).submit("read", "data")) == "as sent"


def test_a_program_finds_its_files(
    open_cluster: Open, shared_node: RunningNode, here: Path
) -> None:
    write(here / "sub" / "data", "42")
    write(here / "tool", "#!/bin/sh\ncat data sub/data $1\n").chmod(0o755)
    write(here / "one", "!")
    cluster = open_cluster(str(here / "tool"), nodes=[shared_node.host], depends=["sub/data"])
    job = cluster.submit("one", dispy_job_depends=["one"])
    assert job is not None
    assert job() == 0
    assert job.stdout == b"4242!"


def test_a_content_goes_once_to_a_node_whatever_the_clusters_and_jobs(
    open_here: Open, here: Path, shared_node: RunningNode
) -> None:
    (here / "big").write_bytes(data := os.urandom(1_500_000).hex().encode())
    (here / "copy").write_bytes(data)
    result(open_here().submit("list"))
    before = fetched(shared_node)
    for _ in range(3):
        cluster = open_here(depends=["big", "copy"])
        jobs = [cluster.submit("read", name) for name in ("big", "copy")]
        jobs += [cluster.submit("read", "copy", dispy_job_depends=["copy"]) for _ in range(4)]
        assert {len(result(job)) for job in jobs} == {3_000_000}
        cluster.close()
    assert fetched(shared_node) - before == 3_000_000


def test_a_node_may_have_files_of_its_own(
    open_cluster: Open, start_node: Callable[..., RunningNode], here: Path
) -> None:
    write(here / "for all"), write(here / "own" / "data", "one"), write(here / "data", "two")
    nodes = [start_node(), start_node()]
    allocations = [
        NodeAllocate(nodes[0].host, depends=["own/data"]),
        NodeAllocate(nodes[1].host, depends=["data"]),
    ]
    cluster = open_cluster(act, nodes=allocations, depends=["for all"], local_node=False)
    eventually(lambda: len(cluster.status().nodes) == 2, "both nodes")
    names = [result(cluster.submit_node(node.host, "list")) for node in nodes]
    assert names == [["data", "for all", "own/data"], ["data", "for all"]]
    texts = [result(cluster.submit_node(node.host, "read", "data")) for node in nodes]
    assert texts == ["one", "two"]


@pytest.mark.parametrize("depends", [["missing"], "data", [7]])
def test_files_of_a_node_that_cannot_be_are_an_error_at_once(here: Path, depends: Any) -> None:
    write(here / "data")
    with pytest.raises(DispyError, match="depends of "):
        NodeAllocate("127.0.0.1", depends=depends)


# -- for one job


def test_a_job_s_files_are_there_when_it_runs_and_go_when_no_job_needs_them(
    open_here: Open, here: Path, gate: Gate
) -> None:
    write(here / "for all"), write(here / "in" / "one")
    cluster = open_here(depends=["for all"])
    directory = Path(result(cluster.submit("where")))
    jobs = [cluster.submit("hold", "in/one", str(gate), dispy_job_depends=["in/one"]) for _ in "ab"]
    eventually(lambda: all(job.status == DispyJob.Running for job in jobs), "both to start")
    gate.open(1)
    eventually(lambda: any(job.done for job in jobs), "the first to end")
    assert (directory / "in" / "one").exists()
    gate.open(1)
    assert [result(job) for job in jobs] == ["one"] * 2
    eventually(lambda: os.listdir(directory) == ["for all"], "the job's files to go")


def test_a_job_whose_file_another_one_of_that_name_uses_waits_for_it(
    open_here: Open, here: Path, gate: Gate
) -> None:
    cluster = open_here()
    write(here / "input", "first")
    first = cluster.submit("hold", "input", str(gate), dispy_job_depends=["input"])
    eventually(lambda: first.status == DispyJob.Running, "the first to start")
    directory = Path(result(cluster.submit("where")))
    eventually((directory / "input").exists, "its file")
    write(here / "next" / "input", "second")
    os.chdir(here / "next")
    second = cluster.submit("read", "input", dispy_job_depends=["input"])
    assert result(cluster.submit("read", "input")) == "first"
    gate.open()
    assert (result(first), result(second)) == ("first", "second")


def test_a_job_whose_file_all_jobs_have_otherwise_ends_with_a_sentence(
    open_here: Open, here: Path
) -> None:
    write(here / "data", "for all"), write(here / "else" / "data", "another")
    cluster = open_here(depends=["data"])
    assert result(cluster.submit("read", "data", dispy_job_depends=["data"])) == "for all"
    os.chdir(here / "else")
    said = failure(cluster.submit("read", "data", dispy_job_depends=["data"]))
    assert "file 'data' of this job is another than that of the same name which all jobs" in said
    assert result(cluster.submit("read", "data")) == "for all"


@pytest.mark.parametrize("depends", ["missing", ["missing"], [Path("missing")]])
def test_a_missing_file_is_an_error_at_once(open_here: Open, here: Path, depends: Any) -> None:
    with pytest.raises(DispyError, match=r"^depends: there is no file .*missing.* in /.*here"):
        open_here(depends=depends)
    cluster = open_here()
    with pytest.raises(DispyError, match=r"^dispy_job_depends: there is no file .*missing"):
        cluster.submit("list", dispy_job_depends=depends)
    assert result(cluster.submit("list")) == []


def test_a_file_that_changes_before_it_is_read_is_named(
    open_cluster: Open, start_node: Callable[..., RunningNode], here: Path
) -> None:
    write(here / "data", "one")
    port = 51377
    host = f"127.0.{os.getpid() % 250}.9"
    cluster = open_cluster(act, nodes=[(host, port)], depends=["data"], local_node=False)
    job = cluster.submit("read", "data")
    write(here / "data", "another")
    start_node(host=host, port=port)
    eventually(lambda: "changed while it was being sent" in job.why(), f"a reason: {job.why()}")
    assert str(here / "data") in job.why()


# -- sent while the cluster runs


def test_send_file_puts_a_file_where_jobs_run_and_says_whether_it_did(
    open_here: Open, here: Path, shared_node: RunningNode, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = open_here()
    directory = Path(result(cluster.submit("where")))
    node = cluster.status().nodes[0]
    write(here / "sub" / "late", "one")
    assert cluster.send_file("sub/late", node) == 0
    assert result(cluster.submit("read", "sub/late")) == "one"
    write(here / "sub" / "late", "two")
    assert cluster.send_file(here / "sub" / "late", node.ip_addr, relay=True) == 0
    assert result(cluster.submit("read", "late")) == "two"
    assert cluster.send_file("sub/late", "no such node") == -1
    assert cluster.send_file("missing", node) == -1
    (directory / "in the way").mkdir()
    write(here / "in the way")
    assert cluster.send_file("in the way", node) == -1
    assert "send_file: no node 'no such node' is ready for act" in caplog.text
    assert "send_file: there is no file 'missing'" in caplog.text
    assert "'in the way' is a directory there; no file replaces it" in caplog.text
    cluster.close()
    assert cluster.send_file("sub/late", node) == -1


# -- where, and for how long


def test_without_a_word_each_cluster_has_a_fresh_directory_which_goes(
    open_here: Open, here: Path
) -> None:
    write(here / "data")
    clusters = [open_here(depends=["data"]) for _ in "ab"]
    places = {Path(result(cluster.submit("where"))) for cluster in clusters}
    assert len(places) == 2
    result(clusters[0].submit("write", "new", "x"))
    for cluster in clusters:
        cluster.close()
    eventually(lambda: not any(place.exists() for place in places), "the directories to go")


def test_clusters_share_a_dest_path_that_goes_with_the_last(open_here: Open, here: Path) -> None:
    write(here / "one"), write(here / "two")
    first = open_here(dest_path="shared/place", depends=["one"])
    place = Path(result(first.submit("where")))
    assert place.parts[-2:] == ("shared", "place")
    result(first.submit("write", "new", "by the first"))
    second = open_here(dest_path="/shared//place/", depends=["two"])
    assert Path(result(second.submit("where"))) == place
    assert result(second.submit("list")) == ["new", "one", "two"]
    first.close()
    eventually(lambda: not (place / "one").exists(), "the first's file to go")
    assert result(second.submit("list")) == ["new", "two"]
    second.close()
    eventually(lambda: not place.exists(), "the directory to go")


def test_clusters_of_one_program_share_a_dest_path_while_it_runs(
    open_cluster: Open, shared_node: RunningNode, here: Path
) -> None:
    shutil.copy(shutil.which("sleep") or "/bin/sleep", here / "doze")
    options = {"nodes": [shared_node.host], "dest_path": "programs", "local_node": False}
    first = open_cluster(str(here / "doze"), **options)
    long = first.submit(1000)
    eventually(lambda: long.status == DispyJob.Running, "it to start")
    assert result(open_cluster(str(here / "doze"), **options).submit(0)) == 0
    first.cancel(long)
    assert long.finish.wait(DEADLINE)


def test_what_is_kept_is_found_again_even_by_another_node_process(
    open_cluster: Open, start_node: Callable[..., RunningNode], here: Path
) -> None:
    (here / "data").write_bytes(os.urandom(100_000).hex().encode())
    node = start_node()
    options = {"nodes": [node.host], "dest_path": "kept", "depends": ["data"], "local_node": False}
    cluster = open_cluster(act, cleanup=False, **options)
    place = Path(result(cluster.submit("where")))
    result(cluster.submit("write", "new", "by a job"))
    cluster.close()
    assert fetched(node) == 200_000
    assert node.end() == 0
    assert sorted(os.listdir(place)) == ["data", "new"]
    assert {path.name for path in place.parents[2].iterdir()} == {"clients"}
    again = start_node(host=node.host)
    assert "--clean" not in again.said
    cluster = open_cluster(act, **options)
    assert Path(result(cluster.submit("where"))) == place
    assert result(cluster.submit("list")) == ["data", "new"]
    assert fetched(again) == 0, "what lay there was sent again"
    result(cluster.submit("write", "brought", "later"))
    cluster.close()
    assert again.end() == 0
    assert {"data", "new"} <= set(os.listdir(place)), "what an earlier cluster kept has gone"


def test_cleanup_false_keeps_a_fresh_directory(
    open_cluster: Open, start_node: Callable[..., RunningNode], here: Path
) -> None:
    write(here / "data")
    node = start_node()
    with open_cluster(act, nodes=[node.host], depends=["data"], cleanup=False) as cluster:
        result(cluster.submit("write", "new", "x"))
        write(here / "one")
        place = Path(result(cluster.submit("where", dispy_job_depends=["one"])))
    assert node.end() == 0
    assert sorted(os.listdir(place)) == ["data", "new"]
    again = start_node("--clean", host=node.host)
    assert not place.exists()
    again.end()


@pytest.mark.parametrize(
    ("dest_path", "words"),
    [
        (7, "dest_path is a text, not 7"),
        ("../x", "would leave the directory"),
        ("a/../../x", "would leave the directory"),
        ("a\0b", "no path"),
    ],
)
def test_a_dest_path_that_cannot_be_is_refused(open_here: Open, dest_path: Any, words: str) -> None:
    with pytest.raises(DispyError, match=words):
        open_here(dest_path=dest_path)


def test_leading_separators_of_a_dest_path_are_stripped_with_a_warning(
    open_here: Open, caplog: pytest.LogCaptureFixture, shared_node: RunningNode
) -> None:
    cluster = open_here(dest_path="/work")
    assert "taken without its /" in caplog.text
    place = Path(result(cluster.submit("where")))
    assert shared_node.directory in place.parents
    assert place.name == "work"
