"""`dispy doctor` says what is well, what is not, and what to do; line by line."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dispy import __version__
from dispy.model.ports import CLIENT_PORT, NODE_PORT
from dispy.protocol.frames import encode_frame
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.system.interpreter import own_command

HOST = "127.8.0.1"


def doctor(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        own_command("doctor", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout


def lines(output: str, *wanted: str) -> list[str]:
    return [line for line in output.splitlines() if all(word in line for word in wanted)]


def test_a_machine_where_all_is_well_has_no_problem() -> None:
    status, output = doctor()
    assert status == 0, output
    assert lines(output, "ok ", "Python: CPython ")
    assert lines(output, "ok ", f"versions: dispy {__version__}, gevent ")
    assert lines(output, "ok ", "processors: ", " usable")
    assert lines(output, "ok ", f"TCP port {NODE_PORT} (node): free")
    assert lines(output, "ok ", f"UDP port {NODE_PORT} (node): free")
    assert lines(output, "ok ", f"UDP port {CLIENT_PORT} (client): programs hear")
    assert lines(output, "ok ", "network loopback: ", "comes back")
    assert lines(output, "ok ", "directory ", "can be written")
    verdicts = {line.split()[0] for line in output.splitlines()}
    assert verdicts <= {"ok", "warning"}, output


def test_a_node_that_runs_here_is_named_with_its_process(start_node) -> None:
    node = start_node("--name=bench")
    status, output = doctor(node.host)
    assert status == 0, output
    assert lines(
        output, "ok ", f"TCP port {NODE_PORT} (node): node bench listens at {node.host}",
        f"(process {node.process.pid})",
    )  # fmt: skip
    assert lines(output, "ok ", f"UDP port {NODE_PORT} (node): that node listens for pings")
    assert lines(output, "ok ", f"nodes: 1 answer: bench at {node.host} port {NODE_PORT}")
    assert lines(output, "ok ", f"host {node.host}: node bench listens on TCP port {NODE_PORT}")
    assert lines(output, "ok ", f"host {node.host}: node bench answers pings")
    assert lines(output, "ok ", f"host {node.host}: its clock and ours agree")
    assert "refused" not in node.said


def test_a_port_that_something_else_has_is_named_with_its_process() -> None:
    with (
        socket.create_server(("127.0.0.1", NODE_PORT)),
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", NODE_PORT))
        status, output = doctor()
    assert status == 0, output
    ours = f"(process {os.getpid()})"
    (tcp,) = lines(output, "warning ", f"TCP port {NODE_PORT} (node): used by", ours)
    assert "which is no dispy node" in tcp
    assert "start nodes with --port" in tcp
    assert lines(output, "warning ", f"UDP port {NODE_PORT} (node): used by", ours)


def test_a_client_port_that_cannot_be_shared_is_a_warning() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("", CLIENT_PORT))
        _, output = doctor()
    (line,) = lines(output, "warning ", f"UDP port {CLIENT_PORT} (client): used by")
    assert "ping_interval" in line


def test_a_host_where_nothing_listens_is_a_problem_with_the_command_that_helps() -> None:
    status, output = doctor(HOST)
    assert status == 1, output
    (line,) = lines(output, "problem ", f"host {HOST}: nothing listens on TCP port {NODE_PORT}")
    assert "dispy node --host=ADDRESS" in line


def test_a_name_without_an_address_is_a_problem_and_the_next_host_is_still_checked() -> None:
    status, output = doctor("no.such.host.invalid", HOST)
    assert status == 1, output
    assert lines(output, "problem ", "host no.such.host.invalid: has no address")
    assert lines(output, f"host {HOST}: has address {HOST}")


def pretended(hello: Hello) -> list[dict[str, str]]:
    """Return what doctor says of a host whose node says this of itself."""
    with socket.create_server((HOST, NODE_PORT)) as server:
        process = subprocess.Popen(
            own_command("doctor", "--json", HOST), stdout=subprocess.PIPE, text=True
        )
        server.settimeout(60)
        for _ in range(2):  # it is looked at as a node of this machine, and as that host
            connection, _address = server.accept()
            with connection:
                connection.sendall(b"".join(encode_frame(Kind.HELLO, hello.body())))
                while connection.recv(4096):
                    pass  # until it has read that
        output, _ = process.communicate(timeout=60)
    checks: list[dict[str, str]] = json.loads(output)
    return [check for check in checks if check["subject"] == f"host {HOST}"]


@pytest.mark.parametrize(
    ("said", "verdict", "finding", "advice"),
    [
        (
            {"version": "4.15.2"},
            "warning",
            "runs dispy 4.15.2, this machine",
            "pip install dispy==",
        ),
        ({"python": "3.7"}, "warning", "functions cannot be sent there", "Run the node with"),
        ({"platform": "Windows-10"}, "warning", "another kind of system", "Programs"),
        ({"details": {"time": 1.0}}, "warning", "s behind ours", "time service"),
        ({"protocol": 99}, "problem", "no node that we understand", "the same version"),
        ({"role": "client"}, "problem", "a client connected where a node was expected", ""),
    ],
)
def test_a_node_that_differs_from_this_machine_is_told_how(
    said: dict[str, Any], verdict: str, finding: str, advice: str
) -> None:
    checks = pretended(Hello(**{"role": "node", "identity": "1" * 32, "name": "other", **said}))
    found = [check for check in checks if finding in check["finding"]]
    assert [check["verdict"] for check in found] == [verdict], checks
    assert advice in found[0]["advice"]


def test_a_directory_without_room_or_where_no_program_may_run_is_told(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    mount = ["unshare", "--mount", "sh", "-c"]
    script = f'mount -t tmpfs -o $0 none {tmp_path} && TMPDIR={tmp_path} exec "$@"'
    for option, verdict, finding in (
        ("noexec", "warning", "mounted noexec"),
        ("size=4k", "warning", "0 MB free"),
    ):
        done = subprocess.run(
            [*mount, script, option, *own_command("doctor")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "mount:" in done.stderr:
            pytest.skip("this container lets nobody mount")
        assert lines(done.stdout, verdict, f"directory {tmp_path}: {finding}"), done.stdout


def test_a_setting_that_says_nothing_is_a_problem_with_its_place() -> None:
    status, output = doctor(DISPY_INSECURE="perhaps")
    assert status == 1, output
    assert lines(output, "problem ", "DISPY_INSECURE: 'perhaps' is not yes or no. Correct it")


def test_programs_can_read_it() -> None:
    status, output = doctor("--json")
    assert status == 0
    checks = json.loads(output)
    assert {tuple(check) for check in checks} == {("verdict", "subject", "finding", "advice")}
    assert all(check["advice"] for check in checks if check["verdict"] != "ok")


@pytest.mark.parametrize("arguments", [["--port=x"], ["--port=0"], ["--nonsense"]])
def test_wrong_usage_is_told_and_is_status_2(arguments: list[str]) -> None:
    status, output = doctor(*arguments)
    assert status == 2
    assert output
