"""A link is reset at any point of its life; the next one goes on, and nothing is done twice."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from system.conftest import Program, RunningNode
from system.hostile import SECRET, secret_file

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets, and forgets what is on its way
SIZE = 64 * 1024 * 1024

PROGRAM = """
import dispy, os, sys

def work(log, size):
    import os
    with open(log, "a") as file:
        file.write("begun\\n")
    return bytes(size)

if __name__ == "__main__":
    port, log, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    delivered = []
    cluster = dispy.JobCluster(
        work, nodes=[("127.0.0.1", port)], local_node=False, callback=delivered.append
    )
    jobs = [cluster.submit(log, size) for _ in range(2)]
    cluster.wait()
    cluster.close()
    for job in jobs:
        print("job", job.status.name, len(job.result or b""), delivered.count(job), job.exception)
"""


class ResettingRelay:
    """Passes bytes to a node, and resets each connection in turn where its plan says.

    plan: for each connection the bytes from the program, and from the node, after which both of
    its ends are reset; None: none are too many.
    """

    def __init__(self, host: str, plan: list[tuple[int | None, int | None]]) -> None:
        self._node, self.plan = (host, 51348), plan
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                program, _ = self._server.accept()
                node = socket.create_connection(self._node)
                rooms = self.plan.pop(0) if self.plan else (None, None)
                for one, other, room in ((program, node, rooms[0]), (node, program, rooms[1])):
                    threading.Thread(target=self._pass, args=(one, other, room)).start()

    def _pass(self, one: socket.socket, other: socket.socket, room: int | None) -> None:
        with contextlib.suppress(OSError):
            while room != 0 and (data := one.recv(65536 if room is None else min(room, 65536))):
                other.sendall(data)
                room = None if room is None else room - len(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                if room == 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sock.shutdown(socket.SHUT_RD)  # wakes the other thread, which closes too
                sock.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def check(
    node: RunningNode, run: Callable[..., Program], directory: Path, size: int,
    plan: list[tuple[int | None, int | None]], secret: Path,
) -> None:  # fmt: skip
    """Run two jobs through links that are reset as planned."""
    log = directory / "begun"
    relay = ResettingRelay(node.host, plan)
    try:
        program = run(PROGRAM, str(relay.port), str(log), str(size), DISPY_SECRET_FILE=str(secret))
        assert program.end() == 0, program.output
    finally:
        relay.close()
    ends = [line for line in program.output.splitlines() if line.startswith("job ")]
    assert ends == [f"job Finished {size} 1 None"] * 2, program.output
    assert log.read_text() == "begun\n" * 2
    assert not relay.plan, "not all was tried"
    assert "Traceback" not in program.output
    assert ") is lost" not in program.output


def test_in_the_handshake_the_proof_the_hello_and_before_a_computation_is_ready(
    start_node: Callable[..., RunningNode], run_program: Callable[..., Program], tmp_path: Path
) -> None:
    secret = secret_file(tmp_path, SECRET)
    node = start_node(f"--secret-file={secret}", host=f"127.6.{os.getpid() % 250}.2")
    from_program = [(size, None) for size in (1, 300, 900, 1500, 2200, 3000, 4000)]
    from_node = [(None, size) for size in (1, 150, 700, 1100, 1500, 1900, 2600)]
    check(node, run_program, tmp_path, 10, [*from_program, *from_node], secret)
    assert node.end() == 0
    assert "Traceback" not in node.said


def test_in_the_midst_of_a_large_result(
    start_node: Callable[..., RunningNode], run_program: Callable[..., Program], tmp_path: Path
) -> None:
    secret = secret_file(tmp_path, SECRET)
    node = start_node(f"--secret-file={secret}", "--cpus=2", host=f"127.6.{os.getpid() % 250}.3")
    cuts = [(None, SIZE // 3), (None, SIZE + SIZE // 2)]
    check(node, run_program, tmp_path, SIZE, cuts, secret)
    assert node.end() == 0
    assert "Traceback" not in node.said
