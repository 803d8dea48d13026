"""What is installed is what was written, and starts in the same way from everywhere."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])('built')"


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, set[str]]:
    """Return a copy of the sources, and the names of those that are to be installed."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("only git knows which files belong to dispy")
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    for name in names:
        copy = tmp_path / "copy" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    return tmp_path / "copy", {name for name in names if name.startswith("dispy")}


def test_wheel_and_source_archive_hold_every_file(written: tuple[Path, set[str]]) -> None:
    copy, names = written
    (copy / "built").mkdir()
    for what in ("build_sdist", "build_wheel"):
        subprocess.run([sys.executable, "-c", BUILD, what], cwd=copy, check=True)
    (wheel,) = copy.glob("built/dispy-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert installed == names
    (source,) = copy.glob("built/dispy-*.tar.gz")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert names | {"setup.py", "pyproject.toml", "README.rst", "LICENSE"} <= held


@pytest.mark.parametrize("arguments", ["--help", "--version", "node --help", "nonsense", ""])
def test_every_way_to_start_it_is_the_same_command(arguments: str) -> None:
    installed = Path(sys.executable).parent / "dispy"
    commands = ([installed], [sys.executable, "dispy_all.py"], [sys.executable, "-m", "dispy"])
    answers = {
        (answer.returncode, answer.stdout, answer.stderr)
        for answer in (
            subprocess.run([*command, *arguments.split()], cwd=ROOT, capture_output=True)
            for command in commands
        )
    }
    assert len(answers) == 1
