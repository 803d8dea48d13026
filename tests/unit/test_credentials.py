"""Secrets do not show, are found, changed and compared; what may see them is hidden from others."""

import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from dispy.cli import main
from dispy.model.credentials import (
    SECRETS_LIMIT,
    Certificate,
    Credentials,
    Secret,
    new_secret,
    read_secrets,
)
from dispy.model.errors import DispyError
from dispy.model.setting import Value
from dispy.model.settings import SETTINGS, resolve
from dispy.net.credentials import concerns, current, load_credentials
from dispy.protocol.proof import VERDICT_BYTES, read_verdict, verdict
from dispy.system.arguments import secret_places
from dispy.system.directories import write_private

TEXT = "correct-horse-battery"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "DISPY_CONFIG", "DISPY_SECRET_FILE", "DISPY_CERTFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def secret_file(home: Path) -> Path:
    return home / ".config" / "dispy" / "secret"


def loaded(**given: str) -> Credentials:
    values = {name: Value(value, name) for name, value in given.items()}
    return load_credentials(resolve("node", values, os.environ, []))


def texts(path: Path) -> list[str]:
    return [secret.text for secret in read_secrets(path.read_text(), str(path))]


# -- what shows


def test_no_repr_shows_a_secret() -> None:
    secret = Secret(TEXT, "a test")
    assert secret.key
    shown = [secret, Credentials((secret,)), Value(TEXT, "--secret"), [secret], {secret: secret}]
    shown.append(resolve("node", {"secret": Value(TEXT, "--secret")}, {}, []))
    for thing in shown:
        assert TEXT not in f"{thing!r} {thing!s}"
        assert secret.key.hex() not in repr(thing)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: Secret(TEXT * 100, "a test"),
        lambda: resolve("client", {"secret": Value(TEXT.encode(), "secret")}, {}, []),
        lambda: resolve("client", {}, {}, [("file.toml", {"client": {"secret": TEXT}})]),
        lambda: resolve("node", {}, {}, [("file.toml", {"node": {"secret": TEXT}})]),
        lambda: read_secrets(f"{TEXT * 100}\n", "a file"),
    ],
)
def test_no_error_shows_a_secret(attempt: Callable[[], object]) -> None:
    with pytest.raises(DispyError) as raised:
        attempt()
    assert TEXT not in "".join(traceback.format_exception(raised.value))


def test_a_wrong_usage_with_a_secret_does_not_print_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", f"--secret={TEXT}", "--secret=another-one", "--nonsense"]) == 2
    said = capsys.readouterr()
    assert said.err
    assert TEXT not in said.out + said.err
    assert "another-one" not in said.out + said.err


def test_a_file_that_says_a_secret_is_told_where_it_may_be_said() -> None:
    with pytest.raises(DispyError, match="can only be said by the argument secret"):
        resolve("client", {}, {}, [("file.toml", {"client": {"secret": "x"}})])
    assert SETTINGS["node.secret"].hidden
    assert SETTINGS["client.secret"].hidden


def test_a_fingerprint_is_the_same_for_the_same_secret_alone() -> None:
    one, other = Secret(TEXT, "here"), Secret(TEXT + "!", "here")
    assert one.fingerprint == Secret(f" {TEXT}\n", "there").fingerprint != other.fingerprint
    assert len(one.fingerprint) == 8
    assert not one.key.hex().startswith(one.fingerprint)


# -- the command line


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        (["node", "--secret=abc"], ["abc"]),
        (["node", "--secret", "abc", "-d"], ["abc"]),
        (["node", "-s", "abc"], ["abc"]),
        (["node", "-sabc"], ["abc"]),
        (["node", "-dsabc"], ["abc"]),
        (["node", "--sec=abc"], ["abc"]),
        (["node", "--secret=a=b", "-s", "c"], ["a=b", "c"]),
        (["node", "--secret-file=abc", "--port=5"], []),
        (["node", "-s"], []),
    ],
)
def test_each_way_to_type_a_secret_is_found(words: list[str], hidden: list[str]) -> None:
    assert [words[number][first:] for number, first in secret_places(words)] == hidden
    encoded = [word.encode() for word in words]
    assert secret_places(encoded) == secret_places(words)


# -- `dispy secret`


def test_a_secret_is_made_where_it_is_found_and_nobody_else_reads_it(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secret"]) == 0
    said = capsys.readouterr().out
    (text,) = texts(secret_file)
    assert Secret(text, "").strong
    assert text not in said
    for part in (str(secret_file), "scp -p", "--secret-file", "DISPY_SECRET_FILE"):
        assert part in said
    assert secret_file.stat().st_mode & 0o777 == 0o600
    assert secret_file.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(secret_file.parent) == ["secret"]
    assert [secret.text for secret in loaded().secrets] == [text]


def test_a_secret_that_is_there_is_never_written_over(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secret"]) == 0
    before = secret_file.read_bytes()
    assert main(["secret"]) == 2
    assert "--add" in capsys.readouterr().err
    assert secret_file.read_bytes() == before


def test_a_new_secret_comes_first_until_the_old_ones_retire(secret_file: Path) -> None:
    assert main(["secret"]) == 0
    (old,) = texts(secret_file)
    assert main(["secret", "--add"]) == 0
    new, kept = texts(secret_file)
    assert kept == old != new
    assert main(["secret", "--retire"]) == 0
    assert texts(secret_file) == [new]
    assert main(["secret", "--retire"]) == 2
    assert secret_file.stat().st_mode & 0o777 == 0o600


def test_there_are_never_more_secrets_than_are_valid(secret_file: Path) -> None:
    write_private(str(secret_file), "\n".join(new_secret() for _ in range(SECRETS_LIMIT)))
    before = secret_file.read_bytes()
    assert main(["secret", "--add"]) == 2
    assert secret_file.read_bytes() == before


def test_a_secret_is_printed_only_when_that_is_asked_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secret", f"--file={home / 'mine'}", "--print"]) == 0
    said = capsys.readouterr().out
    assert texts(home / "mine")[0] in said
    assert f"--secret-file={home / 'mine'}" in said


def test_a_check_tells_strength_and_sameness_and_not_the_secret(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "mine"
    write_private(str(path), f"feeble\n{TEXT}\n{new_secret()}\n")
    assert main(["secret", "--check", str(path)]) == 1
    said = capsys.readouterr()
    for secret in read_secrets(path.read_text(), ""):
        assert secret.fingerprint in said.out
        assert secret.text not in said.out + said.err
    for word in ("weak", "made up by a person", "strong"):
        assert word in said.out
    path.chmod(0o644)
    assert main(["secret", "--check", str(path)]) == 2
    assert f"chmod 600 {path}" in capsys.readouterr().err


# -- a process that goes on


def test_a_file_of_secrets_is_read_again_when_it_changes(secret_file: Path) -> None:
    assert main(["secret"]) == 0
    credentials = loaded()
    assert current(credentials) is credentials
    assert main(["secret", "--add"]) == 0
    now = current(credentials)
    assert [secret.text for secret in now.secrets] == texts(secret_file)
    assert now.secrets[1] is credentials.secrets[0], "its key is not computed again"
    assert current(credentials) == now == loaded()


@pytest.mark.parametrize("harm", ["removed", "emptied", "opened to others"])
def test_a_file_that_cannot_be_used_any_more_leaves_what_was_valid(
    secret_file: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["secret"]) == 0
    credentials = loaded()
    if harm == "removed":
        secret_file.unlink()
    elif harm == "emptied":
        secret_file.write_text("")
    else:
        secret_file.chmod(0o640)
    with caplog.at_level(logging.WARNING, "dispy"):
        for _ in range(3):
            assert current(credentials).secrets == credentials.secrets
    assert caplog.text.count("the secrets from before stay valid") == 1


def test_a_weak_secret_is_warned_about_and_a_good_one_is_not() -> None:
    (warning,) = concerns(loaded(secret="short"))
    assert "`dispy secret`" in warning
    assert "short enough" in warning
    assert concerns(loaded(secret=TEXT)) == concerns(Credentials()) == []


# -- what both sides say of certificates


def test_a_verdict_tells_what_is_wrong_and_whether_a_secret_is_asked_for() -> None:
    for fault, asks in (("", False), ("has expired", True), ("ä" * 300, False)):
        message = verdict(fault, asks)
        assert len(message) == VERDICT_BYTES
        told, asked = read_verdict(message)
        assert asked == asks
        assert bool(told) == bool(fault)
        assert fault.startswith(told[:100])


def test_what_is_no_verdict_is_a_fault_and_shows_nothing_unprintable() -> None:
    assert read_verdict(b"")[0]
    assert read_verdict(b"x" * VERDICT_BYTES)[0]
    told, _ = read_verdict(verdict("bad\x1b[2Jwords\n", False))
    assert told == "bad?[2Jwords?"


def test_credentials_are_equal_by_what_they_are() -> None:
    certificate = Certificate("cert.pem")
    assert Credentials((Secret(TEXT, "a"),), certificate) == Credentials(
        (Secret(TEXT, "b"),), certificate
    )
