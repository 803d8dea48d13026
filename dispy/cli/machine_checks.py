"""What `dispy doctor` looks at on this machine."""

import errno
import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dispy import __version__
from dispy.cli.checks import OK, PROBLEM, WARNING, Check
from dispy.cli.greeting import greet
from dispy.client.asking import Asker
from dispy.client.settings import resolve_here
from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.model.ports import CLIENT_PORT
from dispy.net.secure import OTHER_USER, WANTS_PROOF, NotProven, OfOtherUser
from dispy.protocol.frames import FrameRefused
from dispy.system.descriptors import descriptor_limit
from dispy.system.network import LOOPBACK, Network, networks, share_port
from dispy.system.processes import forbids_execution, processors

LIBRARIES = {  # module -> distribution
    "gevent": "gevent",
    "greenlet": "greenlet",
    "msgpack": "msgpack",
    "cloudpickle": "cloudpickle",
    "OpenSSL": "pyOpenSSL",
    "docopt": "docopt-ng",
}
DESCRIPTORS = 1024  # a client holds one for each node, a node four for each worker
FREE_BYTES = 100 * 1024 * 1024  # for files of computations and spilled results
GREET_SECONDS = 1.0  # for a port of this machine
ANSWER_SECONDS = 0.5  # for nodes that hear a broadcast


def check_machine(port: int, credentials: Credentials, found: Iterable[Check]) -> Iterator[Check]:
    """Check what programs and nodes on this machine need.

    port: where nodes listen. credentials: those of a program here, and what was `found` of them.
    """
    yield _python()
    yield from _libraries()
    yield _processors()
    yield from _settings()
    yield from found
    yield from check_ports(port, credentials)
    reachable = _reachable()
    yield from map(_broadcast, reachable)
    if len(reachable) == 1:
        finding = "loopback alone: no other machine is found by broadcast"
        yield Check(WARNING, "networks", finding, "Is this machine connected? See `ip address`")
    yield _who_answers(reachable, port)
    yield _descriptors()
    yield _directory(tempfile.gettempdir())


def _python() -> Check:
    here = f"{platform.python_implementation()} {platform.python_version()}"
    return Check(OK, "Python", f"{here} on {platform.platform()}, {sys.executable}")


def _libraries() -> Iterator[Check]:
    found, missing = [f"dispy {__version__}"], []
    for module, distribution in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{distribution} ({error})")
        else:
            found.append(f"{distribution} {_version(distribution)}")
    yield Check(OK, "versions", ", ".join(found))
    if missing:
        advice = "Install dispy with its libraries: pip install dispy"
        yield Check(PROBLEM, "versions", f"cannot be imported: {', '.join(missing)}", advice)
    try:
        importlib.import_module("psutil")
    except ImportError:
        finding = "psutil is missing: networks are not known, and nodes tell no load"
        yield Check(WARNING, "versions", finding, "pip install psutil")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"  # in the single executable


def _processors() -> Check:
    usable, there = processors(), os.cpu_count() or 1
    finding = f"{usable} usable"
    if usable < there:
        finding += f" of {there}: the rest is kept from this process (taskset, cgroup)"
    return Check(OK, "processors", finding)


def _settings() -> Iterator[Check]:
    """Read all settings as programs and nodes do, and name those that somebody has set."""
    for room in ("client", "node"):
        subject = f"settings of a {room}"
        try:
            values = resolve_here(room, {})
        except DispyError as error:
            yield Check(PROBLEM, subject, str(error), "Correct it where it stands, or take it out")
            continue
        said = [f"{n} = {v.value} ({v.source})" for n, v in values.items() if v.source != "default"]
        yield Check(OK, subject, ", ".join(said) or "the defaults")


# -- ports


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a port."""

    address: str
    pid: int | None  # None: of another user, whom we cannot see
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})" if self.pid else "a process of another user"


def check_ports(port: int, credentials: Credentials) -> Iterator[Check]:
    """Say for the ports that clients and nodes need whether they are free, or who has them."""
    nodes: set[int | None] = set()
    yield _tcp(port, nodes, credentials)
    yield _udp(f"UDP port {port} (node)", port, nodes)
    yield _announcements()
    yield _tcp_client()


def _tcp(port: int, nodes: set[int | None], credentials: Credentials) -> Check:
    subject = f"TCP port {port} (node)"
    reason = _bind(socket.SOCK_STREAM, port)
    if reason is None:
        return Check(OK, subject, "free: a node can be started")
    said = []
    holders = _holders("tcp", port)
    for holder in holders or [Holder("127.0.0.1", None, "")]:
        address = "127.0.0.1" if holder.address in ("0.0.0.0", "::") else holder.address
        try:
            hello = greet(address, port, GREET_SECONDS, credentials).hello
        except OfOtherUser as error:
            nodes.add(holder.pid)
            finding = f"{holder} listens at {holder.address}, and is not used: {error}"
            return Check(WARNING, subject, finding, "Nodes of this user need another --port")
        except (OSError, FrameRefused, NotProven) as error:
            if str(error) == WANTS_PROOF:
                nodes.add(holder.pid)
                said.append(f"a node with a secret listens at {holder.address}, {holder}")
                continue
            if isinstance(error, NotProven):
                nodes.add(holder.pid)
                said.append(f"{holder} listens at {holder.address}, and is not used: {error}")
                continue
            if str(error) == OTHER_USER:
                nodes.add(holder.pid)
                said.append(f"a node of another user listens at {holder.address}, {holder}")
                continue
            advice = "End it, or start nodes with --port and say node_port= in programs"
            return Check(WARNING, subject, f"used by {holder}, which is no dispy node", advice)
        nodes.add(holder.pid)
        said.append(f"node {hello.name} listens at {holder.address}, {holder}")
    return Check(OK, subject, "; ".join(said))


def _udp(subject: str, port: int, nodes: set[int | None]) -> Check:
    if _bind(socket.SOCK_DGRAM, port) is None:
        if nodes:
            advice = "Restart the node: what had this port has ended"
            return Check(WARNING, subject, "the node does not listen, so nobody finds it", advice)
        return Check(OK, subject, "free: a node can be found by clients")
    holders = _holders("udp", port)
    foreign = [holder for holder in holders if holder.pid not in nodes]
    if foreign or not nodes:
        who = ", ".join(map(str, foreign)) or "somebody"
        advice = "End it, or start nodes with --port and say node_port= in programs"
        return Check(WARNING, subject, f"used by {who}: clients cannot find a node here", advice)
    return Check(OK, subject, "that node listens for pings")


def _announcements() -> Check:
    subject = f"UDP port {CLIENT_PORT} (client)"
    reason = _bind(socket.SOCK_DGRAM, CLIENT_PORT, shared=True)
    if reason is None:
        return Check(OK, subject, "programs hear when nodes start")
    holders = ", ".join(map(str, _holders("udp", CLIENT_PORT))) or "somebody"
    advice = "End it, or give JobCluster a ping_interval: nodes that start later are found by it"
    return Check(WARNING, subject, f"used by {holders}: {reason}", advice)


def _tcp_client() -> Check:
    subject = f"TCP port {CLIENT_PORT} (client)"
    if _bind(socket.SOCK_STREAM, CLIENT_PORT) is None:
        return Check(OK, subject, "free")
    holders = ", ".join(map(str, _holders("tcp", CLIENT_PORT))) or "somebody"
    return Check(OK, subject, f"used by {holders}; programs that dial their nodes need it not")


def _bind(kind: int, port: int, shared: bool = False) -> str | None:
    """Return why a port of all our addresses cannot be bound; None: it can."""
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            if shared:
                share_port(sock)
            elif kind == socket.SOCK_STREAM:  # else connections that have ended hold it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError as error:
            return os.strerror(error.errno or errno.EADDRINUSE)
    return None


def _holders(kind: str, port: int) -> list[Holder]:
    """Return the processes that have a local port, as far as we may see them."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        found = psutil.net_connections(kind)
    except psutil.Error:
        return []
    holders = set()
    for entry in found:
        listens = kind == "udp" or entry.status == psutil.CONN_LISTEN
        if entry.laddr and entry.laddr.port == port and listens:
            holders.add(Holder(entry.laddr.ip, entry.pid, _process_name(entry.pid)))
    return sorted(holders, key=lambda holder: (holder.address, holder.pid or 0))


def _process_name(pid: int | None) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name()) if pid else ""
    except psutil.Error:
        return ""


# -- networks


def _reachable() -> list[Network]:
    try:
        broadcast = resolve_here("client", {})["broadcast"].value
    except DispyError:
        broadcast = False  # what is wrong with the settings is told above
    return networks() if broadcast else [LOOPBACK]


def _broadcast(network: Network) -> Check:
    """Send a broadcast to ourselves: what does not come back reaches nobody."""
    subject = f"network {network.interface}"
    where = f"{network.address}/{network.prefix}, broadcast {network.broadcast}"
    try:
        with _receiver(network) as ear, _sender() as voice:
            token = os.urandom(16)
            voice.sendto(token, (network.broadcast, ear.getsockname()[1]))
            ear.settimeout(ANSWER_SECONDS)
            while ear.recv(64) != token:
                pass
    except OSError as error:
        reason = "" if isinstance(error, TimeoutError) else f" ({error.strerror or error})"
        finding = f"{where} does not come back{reason}"
        advice = "A firewall may stop it; name the nodes instead, or let UDP through"
        return Check(WARNING, subject, finding, advice)
    return Check(OK, subject, f"{where} comes back")


def _receiver(network: Network) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((network.broadcast, 0))
    except OSError:  # Linux hears a network's broadcasts there, others at the wildcard address
        sock.bind(("", 0))
    return sock


def _sender() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return sock


def _who_answers(reachable: list[Network], port: int) -> Check:
    nodes: dict[str, str] = {}
    with Asker() as asker:
        for network in reachable:
            asker.ask(network.broadcast, port)
        for here, address, _ in asker.answers(ANSWER_SECONDS):
            nodes.setdefault(here.identity, f"{here.name} at {address} port {here.port}")
    if not nodes:
        return Check(OK, "nodes", "none answers a broadcast; `dispy node` starts one")
    return Check(OK, "nodes", f"{len(nodes)} answer: {', '.join(sorted(nodes.values()))}")


# -- limits


def _descriptors() -> Check:
    limit = descriptor_limit()
    if limit is None:
        return Check(OK, "descriptors", "this system sets no limit that matters")
    finding = f"{limit} for each process"
    if limit < DESCRIPTORS:
        return Check(
            WARNING, "descriptors", finding, f"ulimit -n {DESCRIPTORS * 16} before starting"
        )
    return Check(OK, "descriptors", finding)


def _directory(path: str) -> Check:
    subject = f"directory {path}"
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix="dispy-doctor-"):
            free = shutil.disk_usage(path).free
    except OSError as error:
        advice = "Set TMPDIR to one that is, or start nodes with --dest_path_prefix"
        return Check(PROBLEM, subject, f"cannot be written: {error.strerror or error}", advice)
    if forbids_execution(path):
        advice = "Set TMPDIR, or start nodes with --dest_path_prefix, to where programs may run"
        return Check(WARNING, subject, "mounted noexec: programs cannot run there", advice)
    finding = f"{free / 2**20:,.0f} MB free"
    if free < FREE_BYTES:
        return Check(WARNING, subject, finding, "Make room, or set TMPDIR to where there is some")
    return Check(OK, subject, f"can be written, {finding}")
