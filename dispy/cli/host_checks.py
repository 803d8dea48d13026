"""What `dispy doctor` looks at on the way to another host."""

import platform
import socket
import sys
from collections.abc import Iterator

from dispy import __version__
from dispy.cli.checks import OK, PROBLEM, WARNING, Check
from dispy.cli.greeting import Greeting, greet
from dispy.client.asking import Asker
from dispy.model.credentials import Credentials
from dispy.net.credentials import current
from dispy.net.secure import OTHER_USER, WANTS_PROOF, NotProven, OfOtherUser
from dispy.protocol.frames import FrameRefused
from dispy.system.network import is_loopback

CONNECT_SECONDS = 3.0  # a lost first packet is sent again after one
PING_SECONDS = 1.0
PINGS = 3  # within that: a datagram may be lost
OTHERS = "its node is of another user, has no secret, and takes programs of that user alone"
SHARE = "Have the same secret in both users' ~/.config/dispy/secret: `dispy secret` makes one"
CLOCK_SECONDS = 1.0  # by which clocks may differ before job times look odd


def check_host(host: str, port: int, credentials: Credentials) -> Iterator[Check]:
    """Check the way to the node on a host, until something makes the rest pointless.

    credentials: those of a program here.
    """
    subject = f"host {host}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        advice = "Is the name right? Its address may be used instead"
        yield Check(PROBLEM, subject, f"has no address: {reason}", advice)
        return
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    address = addresses[0]
    yield Check(OK, subject, f"has address {', '.join(addresses)}")
    pinged = _check_ping(subject, address, port, credentials)
    try:
        greeting = greet(address, port, CONNECT_SECONDS, credentials)
    except (OSError, FrameRefused, NotProven) as error:
        yield _unreachable(subject, host, port, error)
        if pinged.verdict == OK and not isinstance(error, (FrameRefused, NotProven)):
            advice = f"Let TCP port {port} through the firewall of {host}"
            yield Check(WARNING, subject, f"a node answers pings (UDP {port}), not TCP", advice)
        return
    yield _who(subject, port, greeting)
    yield from _versions(subject, greeting)
    yield pinged
    yield _clock(subject, greeting)
    yield _trust(subject, address, credentials)


def _unreachable(
    subject: str, host: str, port: int, error: OSError | FrameRefused | NotProven
) -> Check:
    start = f"dispy node --host=ADDRESS --port={port}"
    if isinstance(error, ConnectionRefusedError):
        advice = f"Run `{start}` there, with an address by which this machine reaches it"
        return Check(PROBLEM, subject, f"nothing listens on TCP port {port}", advice)
    if isinstance(error, TimeoutError):
        finding = f"TCP port {port} did not answer in {CONNECT_SECONDS:g} s"
        advice = f"Is {host} up, and does no firewall stop TCP and UDP port {port}?"
        return Check(PROBLEM, subject, finding, advice)
    if isinstance(error, OfOtherUser) or str(error) == OTHER_USER:
        finding = f"its node is refused: {error}" if isinstance(error, OfOtherUser) else OTHERS
        return Check(PROBLEM, subject, finding, SHARE)
    if str(error) == WANTS_PROOF:
        finding = "its node asks for a secret or a certificate, and there is none here"
        return Check(PROBLEM, subject, finding, "`dispy secret` says how to bring it here")
    if isinstance(error, NotProven):
        advice = "`dispy secret --check` on both machines shows whether they have the same secret"
        return Check(PROBLEM, subject, f"its node is refused: {error}", advice)
    if isinstance(error, FrameRefused):
        advice = f"If it is a dispy node, run the same version on both: dispy {__version__}"
        finding = f"what listens on TCP port {port} is no node that we understand: {error}"
        return Check(PROBLEM, subject, finding, advice)
    finding = f"TCP port {port} cannot be reached: {error.strerror or error}"
    return Check(PROBLEM, subject, finding, "Is this machine in a network with a way to it?")


def _who(subject: str, port: int, greeting: Greeting) -> Check:
    hello = greeting.hello
    cpus = hello.details.get("cpus")
    offers = f", {cpus} processors" if isinstance(cpus, int) else ""
    finding = f"node {hello.name} listens on TCP port {port} ({hello.platform}{offers})"
    return Check(OK, subject, finding)


def _versions(subject: str, greeting: Greeting) -> Iterator[Check]:
    hello = greeting.hello
    if hello.version == __version__:
        yield Check(OK, subject, f"runs dispy {hello.version}, as this machine")
    else:
        finding = f"runs dispy {hello.version}, this machine {__version__}"
        yield Check(WARNING, subject, finding, f"Install one: pip install dispy=={__version__}")
    ours = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    theirs = f"{hello.implementation} {hello.python}"
    if ours == theirs:
        yield Check(OK, subject, f"runs Python {hello.python}, as this machine")
    else:
        finding = f"runs {theirs}, this machine {ours}, so that functions cannot be sent there"
        yield Check(WARNING, subject, finding, f"Run the node with {ours}; programs are no matter")
    system = platform.platform().split("-")[0]
    if hello.platform.split("-")[0] != system:
        finding = f"is another kind of system than this ({platform.platform()})"
        yield Check(WARNING, subject, finding, "Programs must be made for it; functions run")


def _check_ping(subject: str, address: str, port: int, credentials: Credentials) -> Check:
    if ":" in address:
        return Check(OK, subject, "was not pinged: pings are for IPv4")
    with Asker(current(credentials).secrets) as asker:
        for _ in range(PINGS):
            error = asker.ask(address, port, port)
            for here, _source, proven in asker.answers(PING_SECONDS / PINGS):
                how = f"answers pings (UDP port {port})"
                if not proven:
                    how += " without our secret: patterns with * do not take it"
                return Check(OK, subject, f"node {here.name} {how}")
    reason = f": {error}" if error else ""
    finding = f"no answer to pings (UDP port {port}){reason}"
    advice = "Patterns with * may not find it; programs that name it do. A firewall may stop UDP"
    return Check(WARNING, subject, finding, advice)


def _clock(subject: str, greeting: Greeting) -> Check:
    ahead = greeting.clock_ahead()
    if ahead is None:
        return Check(OK, subject, "does not tell its clock")
    way = "ahead of" if ahead > 0 else "behind"
    if abs(ahead) - greeting.delay / 2 <= CLOCK_SECONDS:
        return Check(OK, subject, f"its clock and ours agree to {CLOCK_SECONDS:g} s")
    finding = f"its clock is {abs(ahead):.1f} s {way} ours, and with it the times of jobs"
    return Check(
        WARNING, subject, finding, "Run a time service (chrony, systemd-timesyncd) on both"
    )


def _trust(subject: str, address: str, credentials: Credentials) -> Check:
    if credentials.protected:
        return Check(OK, subject, "its node has proven itself, and the link is encrypted")
    if is_loopback(address):
        return Check(OK, subject, "is this machine: its node may be used as it is")
    if credentials.insecure:
        return Check(OK, subject, "its node may be used without a secret, as somebody has set")
    advice = "`dispy secret` makes one and says how to bring it to both machines"
    return Check(WARNING, subject, "its node is not used: there is no secret", advice)
