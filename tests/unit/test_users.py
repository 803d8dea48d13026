"""As whom jobs run: which users may be named, what they may reach, and acting as one of them."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispy.model.errors import DispyError
from dispy.model.setting import Value
from dispy.model.settings import resolve
from dispy.node.confinement import confinement_of
from dispy.system.users import User, acting_as, closed_to, find_user, in_the_hands_of

NOBODY = User(65534, 65534, (65534,), "nobody", "/nonexistent", "/bin/sh")
needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="dispy-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def user_by(**said: object) -> User | None:
    given = {name: Value(value, f"--{name.replace('_', '-')}") for name, value in said.items()}
    return confinement_of(resolve("node", given, {}, []), {}).user


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"run_as": "no-such-user"}, "--run-as: this machine has no user 'no-such-user'"),
        ({"run_as": "4000000000"}, "has no user '4000000000'; a user that has no name is said by"),
        ({"run_as": "nobody:no-such-group"}, "--run-as: this machine has no group 'no-such-group'"),
        ({"run_as": "root"}, "--run-as: jobs that run as root, or in its group"),
        ({"run_as": "nobody:0"}, "--run-as: jobs that run as root, or in its group"),
        ({"suid": "4000000000"}, "has no user 4000000000; say its group too: --sgid"),
        ({"suid": "0"}, "--suid: 0 is not 1 to"),
        ({"suid": "99999999999"}, "--suid: 1e+11 is not 1 to"),
        ({"sgid": "5"}, "--sgid: a group without a user; say --suid too"),
        ({"run_as": "nobody", "suid": "5"}, "--run-as and --suid both name a user"),
    ],
)
def test_users_that_cannot_be_are_refused_with_a_sentence(
    said: dict[str, object], words: str
) -> None:
    with pytest.raises(DispyError, match=words.replace("+", r"\+")):
        user_by(**said)


def test_a_named_user_has_its_groups_and_one_by_number_none() -> None:
    named = user_by(run_as="nobody")
    assert named is not None
    assert (named.uid, set(named.groups)) == (65534, set(os.getgrouplist("nobody", named.gid)))
    assert named.environment["USER"] == "nobody"
    numbered = user_by(suid="4711", sgid="4712")
    assert numbered is not None
    assert (numbered.uid, numbered.gid, numbered.groups) == (4711, 4712, (4712,))
    assert numbered.environment["HOME"] == "/"
    own_group = user_by(suid="65534")
    assert own_group is not None
    assert own_group.gid == named.gid
    assert user_by() is None


def test_jobs_of_another_user_have_its_variables_and_a_limit_of_processes() -> None:
    given = {"run_as": Value("nobody", "here")}
    confinement = confinement_of(resolve("node", given, {}, []), {"HOME": "/root", "LANG": "C"})
    assert confinement.environment["HOME"] == find_user("nobody", "here").home
    assert confinement.environment["LANG"] == "C"
    assert any(word.startswith("--max-processes=") for word in confinement.command(5))
    given["max_processes"] = Value("100", "--here")
    limited = confinement_of(resolve("node", {}, {"DISPY_MAX_PROCESSES": "100"}, []), {})
    assert "--max-processes=100" in limited.command(5)


def test_the_first_closed_directory_on_the_way_is_named_links_and_all(place: Path) -> None:
    (place / "open" / "closed").mkdir(parents=True)
    (place / "open" / "closed" / "file").write_text("x")
    assert closed_to(NOBODY, str(place / "open" / "closed" / "file")) is None
    (place / "open" / "closed").chmod(0o700)
    assert closed_to(NOBODY, str(place / "open" / "closed" / "file")) == f"{place}/open/closed"
    (place / "link").symlink_to(place / "open" / "closed" / "file")
    assert closed_to(NOBODY, str(place / "link")) == f"{place}/open/closed"
    (place / "open" / "closed" / "link").symlink_to("/")
    assert closed_to(NOBODY, str(place / "open" / "closed" / "link")) == f"{place}/open/closed"


@needs_root
def test_a_directory_in_which_that_user_may_rename_others_is_named(place: Path) -> None:
    assert in_the_hands_of(NOBODY, str(place / "root")) is None, "/tmp is sticky"
    place.chmod(0o777)
    assert in_the_hands_of(NOBODY, str(place / "root")) == str(place)
    place.chmod(0o1777)
    assert in_the_hands_of(NOBODY, str(place / "root")) is None
    os.chown(place, NOBODY.uid, 0)
    assert in_the_hands_of(NOBODY, str(place / "root")) == str(place)


@needs_root
def test_a_thread_that_acts_as_a_user_may_what_that_user_may(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError), acting_as(NOBODY):
        with pytest.raises(PermissionError):
            (place / "file").write_text("x")
        with pytest.raises(PermissionError):
            place.chmod(0o777)
        raise FileNotFoundError
    (place / "file").write_text("ours again")
    place.chmod(0o777)
    with acting_as(NOBODY):
        (place / "theirs").write_text("x")
    assert (place / "theirs").stat().st_uid == NOBODY.uid
