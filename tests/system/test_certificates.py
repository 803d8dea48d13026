"""Certificates keep others out, and both sides are told in words why."""

import datetime
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispy.cli import main
from dispy.cli.greeting import Greeting, greet
from dispy.client.settings import client_credentials
from dispy.model.credentials import Credentials, Secret
from dispy.model.errors import DispyError
from dispy.model.ports import NODE_PORT
from dispy.net import authority, certificates
from dispy.net.credentials import concerns
from dispy.net.dialing import connect
from dispy.net.link import Link
from dispy.net.secure import NotProven, dial
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.system.interpreter import own_command

SECONDS = 20.0
HOST = "127.0.77.5"  # not of other tests: it stands in certificates
OTHER = "127.0.77.6"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with an authority, and no broadcasts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISPY_BROADCAST", "0")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["cert", "ca"]) == 0
    return tmp_path


def issue(name: str, *options: str) -> Path:
    assert main(["cert", "issue", name, *options]) == 0
    return Path(name).absolute()


def issue_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Issue a certificate that was valid until yesterday."""
    with monkeypatch.context() as patched:
        patched.setattr(authority, "_LEEWAY", datetime.timedelta(days=3))
        directory = Path(".config/dispy/ca").absolute()
        authority.issue(str(directory), name, name, days=-1)
    return Path(name).absolute()


def options(files: Path, *more: str) -> list[str]:
    named = {"certfile": "cert.pem", "keyfile": "key.pem", "cafile": "ca.pem"}
    return [*(f"--{option}={files / name}" for option, name in named.items()), *more]


def of_client(files: Path) -> Credentials:
    return client_credentials(
        certfile=str(files / "cert.pem"), keyfile=str(files / "key.pem"),
        cafile=str(files / "ca.pem"),
    )  # fmt: skip


def ask(node: Any, credentials: Credentials) -> Greeting:
    return greet(node.host, NODE_PORT, SECONDS, credentials)


def test_what_one_authority_signed_is_believed_on_both_sides(
    start_node: Callable[..., Any], home: Path
) -> None:
    node = start_node(*options(issue("machine", f"--ip={HOST}", "--role=node")), host=HOST)
    files = issue("program", "--role=client")
    assert ask(node, of_client(files)).hello.role == "node"
    command = own_command("run", f"--nodes={HOST}", *options(files), "echo", "-a", "it works")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "it works\n"), done.stderr


def test_a_certificate_of_another_authority_is_refused(
    start_node: Callable[..., Any], home: Path
) -> None:
    node = start_node(*options(issue("machine")), host=HOST)
    assert main(["cert", "ca", "--directory=foreign"]) == 0
    foreign = issue("stranger", "--directory=foreign")
    with pytest.raises(NotProven, match="not signed by the authority of .*ca.pem"):
        ask(node, of_client(foreign))
    shutil.copy("machine/ca.pem", "stranger/ca.pem")  # it believes us, and we do not believe it
    with pytest.raises(NotProven, match="does not accept the certificate .*stranger/cert.pem"):
        ask(node, of_client(foreign))
    with pytest.raises(NotProven, match="wants a certificate, and this side has a secret alone"):
        ask(node, Credentials((Secret("a secret that is long", "a test"),)))
    node.end()
    assert "refused" in node.said
    assert "its certificate is not signed by the authority of" in node.said


def test_an_ended_certificate_is_told_to_both_sides(
    start_node: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node(*options(issue("machine")), host=HOST)
    ended = issue_ended("ended", monkeypatch)
    with pytest.raises(NotProven, match="refuses this side's certificate, which has expired on 20"):
        ask(node, of_client(ended))
    node.end()
    assert "its certificate has expired on 20" in node.said


def test_an_ended_certificate_of_our_own_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = issue_ended("ended", monkeypatch)
    with pytest.raises(DispyError, match="has expired on 20.*dispy cert issue"):
        concerns(of_client(ended))
    done = subprocess.run(
        own_command("node", f"--host={HOST}", *options(ended)),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"the certificate {ended / 'cert.pem'} has expired on 20" in done.stderr
    capsys.readouterr()
    assert main(["cert", "show", str(ended / "cert.pem")]) == 1
    assert "has expired on 20" in capsys.readouterr().out


def test_a_certificate_that_ends_soon_is_warned_about(start_node: Callable[..., Any]) -> None:
    node = start_node(*options(issue("machine", "--days=20")), host=HOST)
    assert node.said.count("expires in 19 days") == 1
    (warning,) = concerns(of_client(Path("machine").absolute()))
    assert "`dispy cert issue`" in warning
    assert concerns(of_client(issue("program"))) == []


def test_a_certificate_for_another_address_is_refused(start_node: Callable[..., Any]) -> None:
    files = issue("machine", f"--ip={OTHER}", "--dns=machine.example.org")
    node = start_node(*options(files), host=HOST)
    with pytest.raises(NotProven, match=f"is for {OTHER}, machine.example.org, not for {HOST}"):
        ask(node, of_client(issue("program", "--ip=192.0.2.1")))
    node.end()
    assert f"refuses this side's certificate, which is for {OTHER}" in node.said


def test_a_certificate_is_good_for_its_roles_alone(start_node: Callable[..., Any]) -> None:
    node = start_node(*options(issue("machine", "--role=node")), host=HOST)
    program = issue("program", "--role=client")
    with pytest.raises(FrameRefused, match="its certificate is for a node, not for a client"):
        say_hello(node, of_client(Path("machine").absolute()))
    assert say_hello(node, of_client(program)).role == "node"
    pretender = start_node(*options(program), host=OTHER)
    with pytest.raises(FrameRefused, match="its certificate is for a client, not for a node"):
        ask(pretender, of_client(Path("machine").absolute()))
    node.end()
    assert "its certificate is for a node, not for a client" in node.said


def say_hello(node: Any, credentials: Credentials) -> Hello:
    """Come as a client; return the node's hello once it has accepted ours."""
    from dispy.net.dialing import connect
    from dispy.net.link import Link
    from dispy.net.secure import dial

    link = Link(dial(connect(node.host, NODE_PORT, SECONDS), credentials, node.host))
    try:
        theirs = link.exchange_hello(Hello("client", "1" * 32, "a test"), "node")
        came: list[Any] = []

        def take(frame: Any) -> None:
            came.append(frame)
            link.close()

        end = link.read(take)
        if end.refused:
            raise FrameRefused(end.reason)
        assert came, end
        return theirs
    finally:
        link.close()


def test_a_revoked_certificate_is_refused_from_the_next_connection_on(
    start_node: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    revoked = Path(".config/dispy/ca/revoked").absolute()
    revoked.write_text("# none yet\n")
    node = start_node(*options(issue("machine"), f"--revoked={revoked}"), host=HOST)
    lost, kept = issue("lost"), issue("kept")
    for files in (lost, kept):
        ask(node, of_client(files))
    assert main(["cert", "revoke", str(lost / "cert.pem")]) == 0
    with pytest.raises(NotProven, match="which has been revoked"):
        ask(node, of_client(lost))
    ask(node, of_client(kept))
    revoked.write_text("nonsense\n")  # what was read before goes on to count
    with pytest.raises(NotProven, match="which has been revoked"):
        ask(node, of_client(lost))
    node.end()
    assert "its certificate has been revoked" in node.said
    assert node.said.count("what was read before goes on to count") == 1


def test_a_renewed_certificate_is_used_without_a_restart(start_node: Callable[..., Any]) -> None:
    machine = issue("machine", f"--ip={OTHER}")
    node = start_node(*options(machine), host=HOST)
    program = of_client(issue("program"))
    with pytest.raises(NotProven, match="is for"):
        ask(node, program)
    renewed = issue("renewed", f"--ip={HOST}")
    for name in ("cert.pem", "key.pem"):
        shutil.move(renewed / name, machine / name)
    ask(node, program)


def test_who_has_a_renewed_certificate_of_the_same_name_is_the_same(
    start_node: Callable[..., Any],
) -> None:
    """And who has one of another name is another, whatever identity it says."""
    node = start_node(*options(issue("machine")), host=HOST)
    program, files = of_client(issue("program")), [["x", b"d" * 32, 1, 0o644, 1]]

    def holds(credentials: Credentials, opens: bool = False) -> list[Any]:
        sock = connect(node.host, NODE_PORT, SECONDS)
        link, heard = Link(dial(sock, credentials, node.host)), list[Any]()

        def hear(frame: Frame) -> None:
            if frame.kind == Kind.HELD:
                heard.append(frame.body)
                if opens:
                    settings = {"program": True, "files": files}
                    link.send(Kind.OPEN, [7, "n", settings], [b"#!/bin/true"])
            if not opens or frame.kind == Kind.FETCH:
                link.close()

        link.exchange_hello(Hello("client", "1" * 32, "n"), "node")
        link.read(hear)
        return heard

    assert holds(program, opens=True) == [[[], []]]
    shutil.move("program", "before")
    assert holds(of_client(issue("program"))) == [[[], [7]]]
    assert holds(of_client(issue("other"))) == [[[], []]]


def test_a_secret_beside_certificates_is_asked_for_too(start_node: Callable[..., Any]) -> None:
    node = start_node(*options(issue("machine"), "--secret=a-long-secret-of-two"), host=HOST)
    program = of_client(issue("program"))
    with pytest.raises(NotProven, match="it asks for a secret too"):
        ask(node, program)

    def with_secret(text: str) -> Credentials:
        return Credentials((Secret(text, "a test"),), program.certificate)

    with pytest.raises(NotProven, match="has not the secret"):
        ask(node, with_secret("another-secret"))
    ask(node, with_secret("a-long-secret-of-two"))


@pytest.mark.parametrize("in_one_file", [True, False])
def test_the_same_self_signed_pair_on_both_sides_needs_no_authority(
    start_node: Callable[..., Any], in_one_file: bool
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    subject = ["-nodes", "-subj", "/CN=cluster", "-days", "2"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject]
    for name in ("pair", "other"):
        subprocess.run(
            [*make, "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    if in_one_file:
        for name in ("pair", "other"):
            with Path(f"{name}.pem").open("a") as file:
                file.write(Path(f"{name}.key").read_text())
            Path(f"{name}.pem").chmod(0o600)

    def pair(name: str) -> dict[str, str]:
        both = {"certfile": str(Path(f"{name}.pem").absolute())}
        if not in_one_file:
            both["keyfile"] = str(Path(f"{name}.key").absolute())
        return both

    node = start_node(*(f"--{option}={path}" for option, path in pair("pair").items()), host=HOST)
    ask(node, client_credentials(**pair("pair")))
    with pytest.raises(NotProven, match=r"not the same as .*other\.pem"):
        ask(node, client_credentials(**pair("other")))


def test_a_key_that_others_can_read_or_that_is_of_another_certificate_is_refused() -> None:
    files, other = issue("machine"), issue("other")
    (files / "key.pem").chmod(0o644)
    with pytest.raises(DispyError, match="chmod 600"):
        of_client(files)
    shutil.copy(other / "key.pem", files / "key.pem")
    (files / "key.pem").chmod(0o600)
    with pytest.raises(DispyError, match="cannot be used: key values mismatch"):
        concerns(of_client(files))


def test_an_authority_is_made_once_and_its_key_is_private(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = home / ".config/dispy/ca/key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    assert main(["cert", "ca"]) == 2
    assert key.read_bytes() == before
    assert main(["cert", "issue", "x", "--directory=nowhere"]) == 2
    assert "`dispy cert ca` makes one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--ip=node5"], "--ip: 'node5' is not an address"),
        (["--dns=kö"], "--dns: 'kö' is not a host name"),
        (["--role=king"], "--role: 'king' is not one of node, client"),
        (["--days=0"], "--days: '0' is not a number from 1"),
        (["--days=9999"], "--days: the authority itself is valid for"),
    ],
)
def test_wrong_words_make_no_certificate(
    wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cert", "issue", "machine", *wrong]) == 2
    assert told in capsys.readouterr().err
    assert not Path("machine").exists()


def test_show_tells_what_is_in_a_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    files = issue("machine", f"--ip={HOST}", "--dns=*.example.org", "--role=node", "--role=client")
    capsys.readouterr()
    assert main(["cert", "show", str(files / "cert.pem")]) == 0
    said = capsys.readouterr().out
    shown = certificates.fingerprint(certificates.load(str(files / "cert.pem"))[0])
    for part in ("machine", "CN=dispy", shown, HOST, "*.example.org", "client, node", "364 days"):
        assert part in said
    assert main(["cert", "show", str(files / "key.pem")]) == 2


def test_names_of_a_certificate_stand_for_what_people_mean() -> None:
    files = issue("machine", "--ip=::1", f"--ip={HOST}", "--dns=*.Example.org", "--dns=node5")
    certificate = certificates.load(str(files / "cert.pem"))[0]
    for host in ("::1", "0:0::1", HOST, "NODE5", "a.example.ORG", "node5."):
        assert certificates.is_for(certificate, host), host
    for host in (OTHER, "node6", "a.b.example.org", "example.org", ""):
        assert not certificates.is_for(certificate, host), host
    assert certificates.is_for(certificates.load(str(issue("any") / "cert.pem"))[0], "whatever")
