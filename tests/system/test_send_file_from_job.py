"""`dispy_send_file`: files of jobs come to the client whole, where they belong, or not at all."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dispy import JobCluster

Open = Callable[..., JobCluster]

SMALL = 3 * 1024 * 1024 + 7  # bytes; several pieces and a part of one


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in which the client's program was started."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def make_and_send(name: str, size: int = 100, mode: int = 0o640, count: int = 1) -> list:
    from pathlib import Path

    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(n % 251 for n in range(min(size, 4096))) * (size // 4096 + 1))
    os.truncate(path, size)
    path.chmod(mode)
    os.utime(path, ns=(10**18 + 7, 10**18 + 7))
    return [dispy_send_file(path) for _ in range(count)]  # noqa: F821


def content(size: int) -> bytes:
    return (bytes(n % 251 for n in range(min(size, 4096))) * (size // 4096 + 1))[:size]


def names_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_file_comes_whole_with_its_time_and_mode(
    open_cluster: Open, home: Path, isolation: str
) -> None:
    cluster = open_cluster(make_and_send, isolation=isolation)
    jobs = {
        cluster.submit("plots/deep/one.dat", SMALL, 0o4751): ("plots/deep/one.dat", SMALL, 0o751),
        cluster.submit("empty", 0): ("empty", 0, 0o640),
        cluster.submit(str(home.parent / "other" / "two.dat"), 10): ("two.dat", 10, 0o640),
        cluster.submit("again", 5000, count=3): ("again", 5000, 0o640),
    }
    for job, (name, size, mode) in jobs.items():
        assert set(job.get(timeout=30)) == {0}, job.stderr
        assert (home / name).read_bytes() == content(size), name
        status = (home / name).stat()
        assert stat.S_IMODE(status.st_mode) == mode, name
        assert status.st_mtime_ns == 10**18 + 7, name
    assert not [name for name in names_in(home) if "part" in name]


def test_it_goes_where_the_program_was_when_it_made_the_cluster(
    open_cluster: Open, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = open_cluster(make_and_send)
    monkeypatch.chdir("/")
    assert cluster.submit("here").get(timeout=30) == [0]
    assert (home / "here").exists()


def test_whoever_is_told_of_a_jobs_end_has_its_files(open_cluster: Open, home: Path) -> None:
    seen: list[bool] = []
    cluster = open_cluster(
        make_and_send, job_status=lambda job: seen.append((home / job.args[0]).exists())
    )
    for number in range(20):
        cluster.submit(f"file{number}", 1_100_000)
    cluster.wait(timeout=60)
    assert seen == [True] * 20


def send_all(names: list) -> list:
    return [dispy_send_file(name, timeout=20) for name in names]  # noqa: F821


def test_what_cannot_be_sent_is_told_in_the_jobs_stderr(open_cluster: Open, home: Path) -> None:
    os.mkfifo(home.parent / "pipe")
    cluster = open_cluster(send_all)
    job = cluster.submit(["missing", "/", str(home.parent / "pipe"), "/dev/zero"])
    assert job.get(timeout=30) == [-1, -1, -1, -1]
    assert "'missing' is not sent: No such file or directory" in job.stderr
    assert job.stderr.count("no regular file") == 2
    assert names_in(home) == []


def test_a_symbolic_link_in_the_way_is_not_followed(
    open_cluster: Open, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home.parent / "outside").mkdir()
    (home / "plots").symlink_to(home.parent / "outside")
    (home / "link").symlink_to(home.parent / "outside" / "target")
    cluster = open_cluster(make_and_send)
    job = cluster.submit("plots/one.dat")
    assert job.get(timeout=30) == [-1]
    assert "symbolic link" in job.stderr
    assert "'plots/one.dat' of a job on node" in caplog.text
    assert cluster.submit("link", 10).get(timeout=30) == [0]  # takes the link's own place
    assert names_in(home.parent / "outside") == []


def test_a_larger_file_than_the_client_takes_is_not_sent(
    open_cluster: Open, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = open_cluster(make_and_send, max_file_size="1K")
    assert cluster.submit("fits", 1024).get(timeout=30) == [0]
    job = cluster.submit("large", 1025)
    assert job.get(timeout=30) == [-1]
    assert "1024 at most (max_file_size)" in job.stderr
    assert "1024 at most (max_file_size)" in caplog.text
    assert names_in(home) == ["fits"]


def send_from_threads(count: int) -> list:
    from pathlib import Path

    for number in range(count):
        Path(f"thread{number}").write_bytes(bytes([number]) * 2_500_000)
    answers = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(dispy_send_file(f"thread{n}")))  # noqa: F821
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_threads_of_a_job_send_at_the_same_time(open_cluster: Open, home: Path) -> None:
    cluster = open_cluster(send_from_threads)
    assert cluster.submit(8).get(timeout=60) == [0] * 8
    for number in range(8):
        assert (home / f"thread{number}").read_bytes() == bytes([number]) * 2_500_000


def send_from_child() -> int:
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writes, str(dispy_send_file(__file__)).encode())  # noqa: F821
        os._exit(0)
    os.waitpid(pid, 0)
    return int(os.read(reads, 10))


def test_a_forked_child_of_a_job_sends_nothing(open_cluster: Open, home: Path) -> None:
    assert open_cluster(send_from_child).submit().get(timeout=30) == -1
    assert names_in(home) == []


def send_and_leave(size: int) -> int:

    with open("left", "wb") as file:
        file.truncate(size)
    threading.Thread(target=dispy_send_file, args=("left",)).start()  # noqa: F821
    return 7


def test_a_job_that_ends_while_its_thread_sends_leaves_no_part(
    open_cluster: Open, home: Path
) -> None:
    cluster = open_cluster(send_and_leave)
    for _ in range(3):
        assert cluster.submit(50_000_000).get(timeout=30) == 7
    assert cluster.submit(0).get(timeout=30) == 7
    cluster.close()
    assert not [name for name in names_in(home) if name != "left"]
