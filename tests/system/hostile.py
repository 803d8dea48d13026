"""Peers that break the rules, made by hand: raw sockets, and OpenSSL without dispy's own links.

Only encoders of frames and the computation of proofs are borrowed, to be able to do some steps
right before one that is wrong. All calls block, DEADLINE seconds at most.
"""

import contextlib
import datetime
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from queue import Queue
from time import monotonic
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from system.conftest import DEADLINE, Program, RunningNode

from dispy.model.credentials import Secret
from dispy.protocol.frames import Frame, FrameDecoder, encode_frame, encode_head
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.protocol.proof import (
    ANSWER_BYTES,
    CLAIM_BYTES,
    EXPORTER,
    KEYING_BYTES,
    answer,
    claim,
    is_proven,
)

SECRET = Secret("dispy-" + "s" * 43, "the tests")
OTHER = Secret("dispy-" + "o" * 43, "the tests")
_TEXTS = {SECRET: "dispy-" + "s" * 43, OTHER: "dispy-" + "o" * 43}
LIMIT_SECONDS = struct.pack("ll", int(DEADLINE), 0)  # as SO_RCVTIMEO takes it
RECORD_HEAD = b"\x16\x03\x01"  # a TLS record with a part of a handshake begins so

HONEST = """
import sys, threading
import dispy

def square(n):
    return n * n

if __name__ == "__main__":
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    cluster = dispy.JobCluster(square, nodes=sys.argv[1:], recover_file=False, local_node=False)
    first = [cluster.submit(3) for _ in range(100)]
    print({job() for job in first}.pop(), flush=True)
    done = 0
    while not ended.is_set():
        jobs = [cluster.submit(n) for n in range(100)]
        assert [job() for job in jobs] == [n * n for n in range(100)]
        done += len(jobs)
        ended.wait(0.1)  # all the while, and not much of a processor
    print("all of", done, flush=True)
    cluster.close()
"""


class Honest:
    """A program that runs jobs until it is told to end; all of them must finish."""

    def __init__(
        self, directory: Path, *hosts: str, secret: Secret = SECRET, options: str = ""
    ) -> None:
        """options: more arguments of its cluster."""
        path = directory / f"honest-{len(list(directory.glob('honest-*')))}.py"
        path.write_text(HONEST.replace("local_node=False", f"local_node=False, {options}"))
        file = str(secret_file(directory, secret))
        self.program = Program(path, *hosts, DISPY_SECRET_FILE=file)

    def wait_for(self, words: str) -> str:
        """Return the next line of what it says that has these words."""
        while words not in (line := self.program.line()):
            assert line, f"the program did not say {words!r}: {self.program.output}"
        return line

    def wait_until_said(self, words: str) -> None:
        """Wait until something that it has said, from its start on, has these words."""
        while words not in self.program.output:
            assert self.program.line(), f"it did not say {words!r}: {self.program.output}"

    def end(self, within: float = DEADLINE) -> str:
        """End it, and return all that it has said."""
        self.program.say("enough")
        assert self.program.end(within) == 0, self.program.output
        assert "all of" in self.program.output
        return self.program.output

    def close(self) -> None:
        """End it by force, whatever it does."""
        self.program.close()


def secret_file(directory: Path, *secrets: Secret) -> Path:
    """Write secrets where a node or program may read them."""
    path = directory / f"secret-{len(list(directory.glob('secret-*')))}"
    path.touch(mode=0o600)
    path.write_text("".join(f"{_TEXTS[secret]}\n" for secret in secrets))
    return path


@cache
def context(
    lowest: int = SSL.TLS1_3_VERSION,
    highest: int = SSL.TLS1_3_VERSION,
    ciphers: bytes | None = None,
    certified: bool = True,
) -> SSL.Context:
    """Return OpenSSL's settings of a peer, with a certificate of its own making."""
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_options(SSL.OP_ALL)
    made.set_cipher_list(ciphers or b"ALL:@SECLEVEL=0")
    made.set_min_proto_version(lowest)
    made.set_max_proto_version(highest)
    made.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if certified:
        key, certificate = _certificate()
        made.use_privatekey(key)
        made.use_certificate(certificate)
    return made


@cache
def _certificate() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now, hour = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(now - hour).not_valid_after(now + hour)
    return key, builder.public_key(key.public_key()).sign(key, hashes.SHA256())


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def identity_of(name: str) -> str:
    """Return an identity of the right form; one that has it stays as it is."""
    if re.fullmatch("[0-9a-f]{32}", name):
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Peer:
    """One connection, plain at first."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, LIMIT_SECONDS)
        self.sock, self.tls = sock, None
        self._decoder = FrameDecoder()

    def encrypt(self, settings: SSL.Context, dialled: bool = True) -> None:
        """Shake hands; raises SSL.Error."""
        connection = SSL.Connection(settings, self.sock)
        connection.set_connect_state() if dialled else connection.set_accept_state()
        connection.do_handshake()
        self.tls = connection

    @property
    def keying(self) -> bytes:
        assert self.tls is not None
        return self.tls.export_keying_material(EXPORTER, KEYING_BYTES, None)

    def send(self, data: bytes) -> None:
        """Send all, or as much as the other side takes before it hangs up."""
        with contextlib.suppress(OSError, SSL.Error):
            (self.tls or self.sock).sendall(data)

    def say_no_more(self) -> None:
        """End what goes to the other side, and listen on."""
        with contextlib.suppress(OSError):  # it has hung up already
            self.sock.shutdown(socket.SHUT_WR)

    def receive(self, size: int) -> bytes:
        """Return at most so many bytes; none at the end, however that came."""
        try:
            return bytes((self.tls or self.sock).recv(size))
        except SSL.WantReadError:
            raise TimeoutError("the peer says nothing, and does not hang up") from None
        except (SSL.Error, ConnectionError):
            return b""

    def receive_all(self, size: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        data = b""
        while len(data) < size and (more := self.receive(size - len(data))):
            data += more
        return data

    def frame(self) -> Frame | None:
        """Return the next frame, None at the end."""
        while (frame := self._decoder.next_frame()) is None:
            data = self.receive(65536)
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    def last_words(self) -> str:
        """Return why the other side ended this; fails if it does not end it."""
        said = ""
        while (frame := self.frame()) is not None:
            if frame.kind == Kind.REFUSE:
                said = frame.body[0]
        return said

    def tell(self, kind: int, body: Any, buffers: Sequence[bytes] = ()) -> None:
        """Send a frame, which need not be one that anybody may send."""
        self.send(b"".join(encode_frame(kind, body, buffers)))

    # -- steps that are right

    def prove(self, secret: Secret = SECRET) -> bool:
        """As who dialled: claim, and look at the answer."""
        self.send(claim([secret], self.keying))
        return is_proven(self.receive_all(ANSWER_BYTES), [secret], self.keying)

    def prove_to(self, secret: Secret = SECRET) -> None:
        """As who was dialled: end TLS, hear the claim, and answer it."""
        self.encrypt(context(), dialled=False)
        said, proven = answer(self.receive_all(CLAIM_BYTES), [secret], self.keying)
        assert proven
        self.send(said)

    def until(self, kind: int) -> Frame:
        """Return the next frame of this kind; fails at the end."""
        deadline = monotonic() + DEADLINE
        while (frame := self.frame()) is not None and monotonic() < deadline:
            if frame.kind == kind:
                return frame
        raise AssertionError(f"{Kind(kind).name} did not come")

    def greet(self, role: str = "client", identity: str = "hostile", **details: Any) -> Frame:
        """Say hello and return the other's."""
        said = Hello(role, identity_of(identity), role, details=details)
        self.send(encode_head(Kind.HELLO, said.body()))
        theirs = self.frame()
        assert theirs is not None
        assert theirs.kind == Kind.HELLO, theirs
        return theirs

    def close(self) -> None:
        self.sock.close()


class Attack:
    """A node that is attacked, and connections to it."""

    def __init__(self, node: RunningNode) -> None:
        self.node = node
        self.host, self.port = node.host, node.port
        self._peers: list[Peer] = []
        self._logged = threading.Condition()
        self._reading = threading.Thread(target=self._read_log)
        self._reading.start()
        self._told = len(node.said)

    def _read_log(self) -> None:
        for line in self.node.process.stderr:
            with self._logged:
                self.node.said += line
                self._logged.notify_all()

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until the node has logged a line with these words, so many times."""
        with self._logged:
            found = self._logged.wait_for(lambda: self.node.said.count(words) >= times, DEADLINE)
        assert found, f"the node did not say {words!r}: {self.node.said}"

    def new_lines(self) -> str:
        """Return what it has logged since this was asked for last."""
        with self._logged:
            before, self._told = self._told, len(self.node.said)
            return self.node.said[before:]

    def connect(self, source: str = "") -> Peer:
        """Return a connection on which nothing has been said, each from an address of its own.

        What a node allows an address, and says of it, is the same for each.
        """
        number = len(self._peers)
        source = source or f"127.66.{number // 250}.{number % 250 + 1}"
        place = (self.node.host, self.node.port)
        sock = socket.create_connection(place, DEADLINE, (source, 0))
        self._peers.append(Peer(sock))
        return self._peers[-1]

    def encrypted(self, **settings: Any) -> Peer:
        """Return one with TLS, and no proof."""
        peer = self.connect()
        peer.encrypt(context(**settings))
        return peer

    def proven(self, secret: Secret = SECRET) -> Peer:
        """Return one whose peer may say hello."""
        peer = self.encrypted()
        assert peer.prove(secret)
        return peer

    def welcome(self, identity: str = "hostile") -> Peer:
        """Return one of a client."""
        peer = self.proven()
        peer.greet(identity=identity)
        return peer

    @property
    def peak_bytes(self) -> int:
        """The most memory that the node has had since `forget_peak`."""
        return peak_bytes(self.node.process.pid)

    def forget_peak(self) -> int:
        """Count the peak anew; return what the node has now."""
        Path(f"/proc/{self.node.process.pid}/clear_refs").write_text("5")
        return int(psutil.Process(self.node.process.pid).memory_info().rss)

    def close(self) -> None:
        """End the node as its operator would; nothing that was done to it may have broken it."""
        for peer in self._peers:
            peer.close()
        self.node.process.terminate()
        try:
            status = self.node.process.wait(DEADLINE)
        finally:
            self.node.process.kill()
            self._reading.join(DEADLINE)
        assert status == 0, self.node.said
        assert "Traceback" not in self.node.said, self.node.said
        assert "Error" not in self.node.said, self.node.said


class Impostor:
    """Listens where a node is expected; `behave` is called with each connection, in a thread."""

    def __init__(self, host: str, behave: Callable[[Peer], None], port: int = 51348) -> None:
        self._listening = socket.create_server((host, port))
        self.host, self.port, self._behave = host, port, behave
        self._connected = threading.Condition()
        self.connections = 0
        self.failures: list[BaseException] = []
        self._peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def wait_for_connections(self, count: int) -> None:
        """Wait until so many have come."""
        with self._connected:
            assert self._connected.wait_for(lambda: self.connections >= count, DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            with self._connected:
                self.connections += 1
                self._connected.notify_all()
            self._peers.append(Peer(sock))
            thread = threading.Thread(target=self._serve, args=(self._peers[-1],))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            self._behave(peer)
        except (OSError, SSL.Error):
            pass  # the other side has had enough
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for sock in (self._listening, *(peer.sock for peer in self._peers)):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        for sock in (self._listening, *(peer.sock for peer in self._peers)):
            sock.close()
        assert not self.failures, self.failures


class FalseNode(Impostor):
    """A node that has the secret, and does what it likes: `act` gets each program that comes."""

    def __init__(
        self, host: str, act: Callable[[Peer], None], identity: str = "false", cpus: int = 2
    ) -> None:
        self._act, self._identity, self._cpus = act, identity, cpus
        self.met: Queue[Hello] = Queue()  # what the programs said of themselves
        super().__init__(host, self._meet)

    def _meet(self, peer: Peer) -> None:
        peer.prove_to()
        said = peer.greet("node", self._identity, cpus=self._cpus).body[0]
        self.met.put(Hello("client", said["identity"], said["name"]))
        self._act(peer)


class Relay:
    """Passes a connection on to a node, byte by byte, and keeps what each side has said."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self.dialler_said, self.listener_said = b"", b""

    def __call__(self, client: Peer) -> None:
        with socket.create_connection((self._node.host, self._node.port)) as node:
            other = threading.Thread(target=self._pass, args=(node, client.sock, "listener_said"))
            other.start()
            self._pass(client.sock, node, "dialler_said")
            other.join(DEADLINE)

    def _pass(self, source: socket.socket, target: socket.socket, kept: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                setattr(self, kept, getattr(self, kept) + data)
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
