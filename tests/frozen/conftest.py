"""The executable, built once for each state of the sources, and nodes started from it.

A node gets an environment without anything: no PATH, no Python, and its own directory for
temporary files, so that a test sees whatever it leaves there.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from system.conftest import DEADLINE, MARK, nothing_left, run_program  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "frozen"
SOMETHING_MISSING = 3  # exit status of packaging/build
BUILD_SECONDS = 600  # on a machine that is busy with other things


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS + 120))


def state_of_the_sources() -> str:
    """Return a name for what the executable would be built of now."""
    digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
    files = [ROOT / "dispy_all.py", ROOT / "setup.py"]
    for directory in ("dispy", "packaging"):
        files += sorted(p for p in (ROOT / directory).rglob("*") if "__pycache__" not in p.parts)
    for file in files:
        if file.is_file():
            digest.update(b"%s\0%d\0" % (str(file).encode(), file.stat().st_size))
            digest.update(file.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def executable() -> Path:
    """Return the path of the single file, which holds the Python that runs these tests."""
    directory = BUILT / state_of_the_sources()
    made = directory / "dispy"
    if not made.exists():
        shutil.rmtree(BUILT, ignore_errors=True)  # of earlier states
        result = subprocess.run(
            [
                ROOT / "packaging/build", f"--dist={directory}",
                f"--python={os.path.realpath(sys.executable)}",
            ],
            stderr=subprocess.PIPE,
            text=True,
            timeout=BUILD_SECONDS,
            # Quickly rather than small: for users it is 9, which takes a third longer to build.
            env=os.environ | {"PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "1"},
        )  # fmt: skip
        if result.returncode == SOMETHING_MISSING:
            pytest.skip(result.stderr.strip())
        assert result.returncode == 0, result.stderr
    return made


class FrozenNode:
    """A `dispy node` of the executable: `outer` unpacks, `inner` is the node."""

    def __init__(
        self,
        command: list[str],
        temporary: Path,
        seen_as: str,
        options: Sequence[str] = (),
        **popen: object,
    ) -> None:
        self.temporary = temporary
        self.outer = subprocess.Popen(
            [*command, "node", "--cpus=2", "--name=frozen", *options],
            env={
                "TMPDIR": seen_as,
                MARK: os.environ[MARK],
                "DISPY_PASS_ENV": MARK,
                "LD_LIBRARY_PATH": "/opt/of-the-user",
            },
            stderr=subprocess.PIPE,
            text=True,
            **popen,  # type: ignore[call-overload]
        )
        self.said = ""
        self.read_until("serves")
        (self.inner,) = psutil.Process(self.outer.pid).children()

    def read_until(self, words: str) -> None:
        """Read what it logs, up to these words."""
        assert self.outer.stderr is not None
        while words not in self.said:
            line = self.outer.stderr.readline()
            if not line:
                pytest.fail(f"the node ended before it said {words!r}: {self.said}")
            self.said += line

    def unpacked(self) -> list[Path]:
        """Return the directories into which something was unpacked and that are there now."""
        return list(self.temporary.glob("_MEI*"))

    def wait(self) -> int:
        """Return the exit status, once it has ended by itself."""
        _, rest = self.outer.communicate(timeout=DEADLINE)
        self.said += rest
        psutil.wait_procs([self.inner], timeout=DEADLINE)
        assert not self.inner.is_running()
        return self.outer.returncode

    def end(self) -> int:
        """End it as an operator would; return its exit status."""
        self.outer.terminate()
        return self.wait()


@pytest.fixture
def start_frozen(
    executable: Path,
    tmp_path: Path,
    nothing_left: None,  # noqa: F811
) -> Iterator[Callable[..., FrozenNode]]:
    """Start nodes from the executable, at this machine's own address."""
    started: list[FrozenNode] = []

    def start(temporary: Path = tmp_path / "temporary", **popen: object) -> FrozenNode:
        temporary.mkdir(exist_ok=True)
        started.append(FrozenNode([str(executable)], temporary, str(temporary), **popen))
        return started[-1]

    yield start
    for node in started:
        end_by_force(node)


@pytest.fixture
def node_in_bare_root(
    executable: Path,
    tmp_path: Path,
    nothing_left: None,  # noqa: F811
) -> Iterator[FrozenNode]:
    """Start a node in a root directory that holds nothing but the C library and zlib."""
    if os.geteuid() != 0:
        pytest.skip("only root may change the root directory of a process")
    root = tmp_path / "root"
    for directory in ("proc", "dev", "tmp"):
        (root / directory).mkdir(parents=True)
    os.mknod(root / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    shutil.copy(executable, root / "dispy")
    for library in libraries_of(executable):
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    inside = f'mount -t proc proc {root}/proc && exec chroot {root} /dispy "$@"'
    command = [
        "/usr/bin/unshare",
        "--mount",
        "/bin/sh",
        "-c",
        f"PATH=/sbin:/usr/sbin:/bin:/usr/bin {inside}",
        "sh",
    ]
    node = FrozenNode(command, root / "tmp", "/tmp")
    yield node
    end_by_force(node)


def libraries_of(executable: Path) -> list[Path]:
    """Return the libraries that the loader wants for it, and the rest of the C library."""
    listed = subprocess.check_output(["ldd", executable], text=True).split()
    found = [Path(word) for word in listed if word.startswith("/")]
    (c_library,) = [path for path in found if path.name.startswith("libc.so")]
    others = ("libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2")
    return found + [c_library.parent / name for name in others]


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Wait for what nobody tells us of; fail when it does not happen."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE:g} s for {what}")
        time.sleep(0.01)


def end_by_force(node: FrozenNode) -> None:
    """Leave nothing of a node whose test failed."""
    if node.outer.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            node.inner.kill()
        node.outer.kill()
        node.outer.communicate()
