"""What a sandbox shows and closes, as the command line says it."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from dispy.model.errors import DispyError
from dispy.node.sandbox import Sandbox
from dispy.system.namespaces import pid_here


def sandbox(**more: object) -> Sandbox:
    return Sandbox("bwrap", "/files", "/files/store", ["SYSTEM"], ["KERNEL"], **more)  # type: ignore[arg-type]


def binds(words: list[str]) -> list[tuple[str, str]]:
    """Return (option, target) of all that is shown, in order."""
    return [
        (word, words[at + 2]) for at, word in enumerate(words) if word.endswith(("bind", "bind-fd"))
    ]


def test_the_command_line_closes_what_is_not_named() -> None:
    words = sandbox().words("/files/owner/1", 7)
    for option in ("user", "pid", "ipc", "uts", "net"):
        assert f"--unshare-{option}" in words
    assert binds(words) == [("--ro-bind", "/files/store"), ("--bind-fd", "/files/owner/1")]
    assert words[words.index("--bind-fd") + 1] == "7"
    pairs = list(pairwise(words))
    assert {("--cap-drop", "ALL"), ("--remount-ro", "/"), ("--remount-ro", "/dev")} <= {*pairs}
    assert {"--die-with-parent", "--disable-userns"} <= {*words}
    assert words[-1] == "--"


def test_the_network_is_shared_only_when_asked_for() -> None:
    assert "--unshare-net" not in sandbox(shares_network=True).words("/files/owner/1", 7)


def test_what_lies_inside_of_something_else_is_shown_after_it() -> None:
    words = sandbox(
        home="/home/me", readable=["/home/me/venv/raw", "/dev/dri", "/data"],
        writable=["/data/scratch", "/home/me/venv"],
    ).words("/files/owner/1", 7)  # fmt: skip
    assert binds(words) == [
        ("--ro-bind", "/data"),
        ("--dev-bind", "/dev/dri"),
        ("--bind", "/data/scratch"),
        ("--bind", "/home/me/venv"),
        ("--ro-bind", "/home/me/venv/raw"),
        ("--ro-bind", "/files/store"),
        ("--bind-fd", "/files/owner/1"),
    ]
    assert words.index("/home/me") < words.index("/home/me/venv")


def test_no_link_leads_to_a_working_directory(tmp_path: Path) -> None:
    (tmp_path / "owner" / "1").mkdir(parents=True)
    (tmp_path / "owner" / "2").symlink_to("/etc")
    made = Sandbox("bwrap", str(tmp_path), "", [], [])
    descriptor = made.open(tmp_path / "owner" / "1")
    assert os.path.samestat(os.fstat(descriptor), os.stat(tmp_path / "owner" / "1"))
    os.close(descriptor)
    with pytest.raises(DispyError, match="symbolic link"):
        made.open(tmp_path / "owner" / "2")


def test_a_process_is_known_by_the_id_that_the_kernel_says() -> None:
    own = os.getpid()
    assert pid_here(own, [1, own]) == own  # nobody else has it where this is no namespace
    assert pid_here(own, [1]) is None
