"""What a recovery proves itself by: what the program did, found again as programs find it."""

from dataclasses import replace
from pathlib import Path

import pytest

from dispy.client.recovering import _credentials
from dispy.client.recovery_form import Program
from dispy.model.credentials import Certificate, KeyPair
from dispy.model.errors import DispyError

PAIR = KeyPair("a key", "a certificate")
BARE = Program("0" * 32, "host, process 7", 1.5)
WITH_SECRET = replace(BARE, secret="DISPY_SECRET_FILE", pair=PAIR)


@pytest.fixture(autouse=True)
def _nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPY_SECRET_FILE", "DISPY_CERTFILE", "DISPY_KEYFILE", "DISPY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def private(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def test_the_secret_comes_from_an_argument_or_from_where_programs_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _credentials("file", WITH_SECRET, {"secret": "one of an argument"})
    assert [secret.text for secret in found.secrets] == ["one of an argument"]
    assert found.pair == PAIR
    monkeypatch.setenv("DISPY_SECRET_FILE", private(tmp_path / "here", "one of the environment"))
    found = _credentials("file", WITH_SECRET, {})
    assert [secret.text for secret in found.secrets] == ["one of the environment"]


def test_else_from_the_file_that_the_program_had_it_from(tmp_path: Path) -> None:
    there = private(tmp_path / "there", "one of the program")
    found = _credentials("file", replace(WITH_SECRET, secrets_file=there), {})
    assert [secret.text for secret in found.secrets] == ["one of the program"]
    with pytest.raises(DispyError, match="of file had a secret .from DISPY_SECRET_FILE., and none"):
        _credentials("file", WITH_SECRET, {})


def test_a_program_without_a_secret_is_not_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPY_SECRET_FILE", private(tmp_path / "here", "one of the environment"))
    found = _credentials("file", BARE, {})
    assert not found.protected


def test_a_persons_certificate_is_found_where_the_program_had_it(tmp_path: Path) -> None:
    key = private(tmp_path / "key.pem", "a key")
    known = Certificate(str(tmp_path / "cert.pem"), key, str(tmp_path / "ca.pem"))
    found = _credentials("file", replace(BARE, certificate=known), {"certfile": None})
    assert found.certificate == known
    assert found.pair is None
    other = private(tmp_path / "other.pem", "a key")
    found = _credentials("file", replace(BARE, certificate=known), {"certfile": other})
    assert found.certificate == Certificate(other)
    gone = replace(known, keyfile=str(tmp_path / "gone" / "key.pem"))
    with pytest.raises(DispyError, match=r"key.pem: No such file"):
        _credentials("file", replace(BARE, certificate=gone), {})
