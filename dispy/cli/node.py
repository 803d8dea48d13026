"""Offer this machine's processors to dispy clients.

Usage:
  dispy node [--cpus=<n>] [--host=<address> | --ip_addr=<address>]
             [--port=<port> | --node_port=<port>] [--name=<name>]
             [--dest_path_prefix=<directory>] [--max_file_size=<n>] [--clean]
             [--zombie_interval=<minutes>] [--client_shutdown]
             [--run-as=<user> | --suid=<uid>] [--sgid=<gid>]
             [--secret=<text> | --secret-file=<file>]
             [--certfile=<file>] [--keyfile=<file>] [--cafile=<file>] [--revoked=<file>]
             [--insecure] [--sandbox] [--log_format=<form>] [-d | --debug]
  dispy node --serve-descriptor=<fd>
  dispy node (-h | --help)

Options:
  -c <n>, --cpus=<n>  processors to offer; negative: all but so many (default: all)
  -i <address>, --host=<address>  address to listen on (default: 127.0.0.1)
  --ip_addr=<address>  dispy 4's name of --host
  -p <port>, --port=<port>  TCP and UDP port (default: 51348)
  --node_port=<port>  dispy 4's name of --port
  --name=<name>  as which clients show this node; its host name by default
  --dest_path_prefix=<directory>  where the files of computations go; below the directory for
                      temporary files by default
  --max_file_size=<n>  most bytes of a file that comes to the node, or that a job sends to its
                      client, as in 10M; 0: any (default: 0)
  --zombie_interval=<minutes>  minutes for which the jobs and results of a client that is away
                      are kept; 0: for ever (default: 60)
  --clean             remove what an earlier node left in that directory, kept files and
                      results that nobody has taken included
  --client_shutdown   let a client's cleanup end this node (dispynode_shutdown)
  -s <text>, --secret=<text>  a secret that both sides share: links are encrypted, and both prove
                      that they have it; better in a file, where nobody sees it
  --secret-file=<file>  file with the secret, or with several that are valid, one a line; by
                      default ~/.config/dispy/secret, if it is there; none: no secret
  --certfile=<file>   PEM file with the certificate that this side shows, and asks the other for
  --keyfile=<file>    PEM file with its private key; by default in the certfile
  --cafile=<file>     PEM file of the authority that has signed the certificates of all; without
                      it both sides have the same certificate
  --revoked=<file>    file with the SHA-256 fingerprints of certificates that count no more, one a
                      line
  --run-as=<user>     user of this machine as whom jobs run, or user:group; the node must be
                      root's
  --suid=<uid>        the same by the user's number, without the groups that it is in
  --sgid=<gid>        number of the group of such jobs; the user's own by default
  --insecure          listen on an address that other machines reach, without encryption:
                      anybody who reaches it can run any program here, other users of this
                      machine included
  --sandbox           have the jobs of each cluster run in a sandbox of its own (bubblewrap;
                      Linux): they see neither the machine's files, but for programs, nor its
                      processes and network
  --log_format=<form>  how the log is written: text, or json: an object a line, with fields for
                      programs (default: text)
  -d, --debug         log more
  --serve-descriptor=<fd>  serve one client on an open socket (for dispy itself)
  -h, --help          print this text

Clients of its network find the node by broadcast on the same (UDP) port number, and those of
other networks when they name it; DISPY_BROADCAST=0 keeps such packets inside this machine.
`dispy doctor` checks all of it.

What no option says comes from DISPY_CPUS, DISPY_NODE_HOST, DISPY_NODE_PORT, DISPY_NODE_NAME,
DISPY_DEST_PATH_PREFIX, DISPY_MAX_FILE_SIZE, DISPY_STORE_SIZE, DISPY_ZOMBIE_INTERVAL,
DISPY_SPILL_ABOVE, DISPY_CLIENT_MEMORY, DISPY_CLIENT_DISK, DISPY_MEMORY_RESERVE, DISPY_PASS_ENV,
DISPY_NEW_PRIVILEGES, DISPY_RUN_AS, DISPY_SUID, DISPY_SGID, DISPY_MAX_PROCESSES, DISPY_SANDBOX,
DISPY_SANDBOX_NETWORK, DISPY_SANDBOX_PATHS, DISPY_SANDBOX_WRITABLE, DISPY_LOG_FORMAT and
DISPY_BROADCAST, then from the table [node] of ~/.config/dispy/config.toml or
/etc/dispy/config.toml.

Ctrl-C or SIGTERM ends the node: jobs that have not begun go back to their clients, running
ones are stopped, files are removed, but for results of absent clients. A second one ends it at
once.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from docopt import docopt
from gevent import socket
from gevent.event import Event

from dispy.cli.addresses import check_address
from dispy.cli.logs import begin_log
from dispy.cli.options import read_options, warn_of_secret
from dispy.client.local_node import PATH_VARIABLE
from dispy.model.errors import DispyError
from dispy.model.setting import Value
from dispy.model.settings import processors_to_offer
from dispy.net.credentials import concerns, load_credentials, secret_path
from dispy.net.link import Link
from dispy.node.confinement import Confinement, confinement_of, confinement_of_own
from dispy.node.directories import KEPT, OWED
from dispy.node.listening import Listener, node_hello
from dispy.node.service import Node
from dispy.node.trial import check_place, check_rights, try_out
from dispy.protocol.frames import FrameRefused
from dispy.shipping.store import let_list
from dispy.system.interpreter import is_frozen
from dispy.system.memory import keep_freed_memory
from dispy.system.network import own_address
from dispy.system.peers import CAN_TELL
from dispy.system.privileges import hide_memory
from dispy.system.processes import processors
from dispy.system.users import User, is_ours

logger = logging.getLogger("dispy.node")

# The executable's outer process hands on what a terminal has sent to both.
SAME_SIGNAL_SECONDS = 0.3


def main(arguments: Sequence[str]) -> int:
    """Run a node until it is told to end; return its exit status."""
    options = docopt(__doc__, argv=list(arguments))
    keep_freed_memory()
    settings = read_options("node", options)
    begin_log(settings["log_format"].value, options["--debug"])
    cpus = processors_to_offer(settings["cpus"], processors())
    if options["--serve-descriptor"]:
        logging.getLogger("dispy").setLevel(logging.WARNING)
        return _serve_one(int(options["--serve-descriptor"]), cpus, settings)
    return _serve_all(settings, cpus, options["--clean"])


def _serve_one(descriptor: int, cpus: int, settings: dict[str, Value]) -> int:
    """Be the private node of the program at the other end of a socket."""
    path = os.environ.pop(PATH_VARIABLE, "").split(os.pathsep)
    directory = Path(tempfile.mkdtemp(prefix="dispy-"))
    node = Node(
        socket.gethostname(), cpus, directory, "127.0.0.1", path,
        store_size=settings["store_size"].value,
        memory_reserve=settings["memory_reserve"].value,
        confinement=confinement_of_own(settings, os.environ),
        client_memory=0,
        client_disk=0,
    )  # fmt: skip
    link = Link(socket.socket(fileno=descriptor), shares_memory=True)
    greenlet = gevent.spawn(_serve_link, node, link)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, link.close)
    greenlet.join()
    node.stop("its program ended")
    return 0


def _serve_link(node: Node, link: Link) -> None:
    try:
        # Measuring takes an import of 20 ms, which the program's first result need not wait for.
        hello = link.exchange_hello(node_hello(node, spare=False), "client")
    except (FrameRefused, OSError) as error:
        logger.debug("the program ended before it used its local node: %s", error)
    else:
        node.serve(link, hello)


def _serve_all(settings: dict[str, Value], cpus: int, clean: bool) -> int:
    host, port = settings["host"].value, settings["port"].value
    credentials = load_credentials(settings)
    if settings["secret"].value:
        warn_of_secret()
    for concern in concerns(credentials):
        logger.warning("%s", concern)
    check_address(settings["host"], credentials, "node")
    if credentials.protected:
        hide_memory()  # from jobs: they may be of the same user
    elif not CAN_TELL:
        logger.warning(
            "this system does not tell which user connects: without a secret every user of this "
            "machine can run programs by this node; `dispy secret` makes one"
        )
    confinement = confinement_of(settings, os.environ)
    if confinement.user is not None:
        check_rights()
    prefix = settings["dest_path_prefix"].value
    root, lock = _own_directory(prefix, host, port, clean, confinement.user)
    if settings["sandbox"].value:
        from dispy.node.sandbox import in_sandbox  # 3 ms that other nodes need not wait for

        confinement = in_sandbox(confinement, settings, root, _private_files(settings))
    if confinement.user is not None or confinement.sandbox is not None:
        _try_out(confinement, root)
    name = settings["name"].value or socket.gethostname()
    told, told_at, why = Event(), 0.0, f"node {name} was ended by its operator"

    def shut_down(reason: str) -> None:
        nonlocal why
        why = f"node {name} ends: {reason}"
        told.set()

    node = Node(
        name, cpus, root, own_address(host),
        shut_down=shut_down if settings["client_shutdown"].value else None,
        max_file_size=settings["max_file_size"].value,
        store_size=settings["store_size"].value,
        memory_reserve=settings["memory_reserve"].value,
        confinement=confinement,
        client_memory=settings["client_memory"].value,
        client_disk=settings["client_disk"].value,
        zombie_seconds=60 * settings["zombie_interval"].value,
        spill_above=settings["spill_above"].value,
    )  # fmt: skip
    try:
        listener = Listener(node, host, port, settings["broadcast"].value, credentials)
    except OSError as error:
        node.stop("it could not start")
        raise DispyError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Another node may "
            f"run there; see `dispy doctor`, or choose --port or --host"
        ) from None

    def tell() -> None:
        nonlocal told_at
        if not told.is_set():
            told_at = monotonic()
            told.set()
        elif not is_frozen() or monotonic() - told_at > SAME_SIGNAL_SECONDS:
            os._exit(130)  # once more: at once; what is left ends with the node's sockets

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, tell)
    if confinement.user is None and hasattr(os, "geteuid") and os.geteuid() == 0:
        logger.warning("jobs run as root; --run-as=<user> has them run as somebody else")
    logger.info("node %s serves %d processors at %s, port %d", name, cpus, host, listener.port)
    told.wait()
    logger.info("ending: jobs that have not begun go back to their clients")
    listener.close()
    node.stop(why)
    lock.close()
    return 0


def _private_files(settings: dict[str, Value]) -> list[str]:
    """Return the files by which this node proves itself, be they there or not."""
    named = [settings[name].value for name in ("secret_file", "certfile", "keyfile")]
    files = [path for path in named if path and path.lower() != "none"]  # which means no secret
    return [secret_path(os.environ), *map(os.path.expanduser, files)]


def _try_out(confinement: Confinement, root: Path) -> None:
    try:
        try_out(confinement, root)
    except DispyError:
        with contextlib.suppress(OSError):
            root.rmdir()
        raise
    if confinement.user is not None:
        logger.info("jobs run as %s", confinement.user)
    if confinement.sandbox is not None:
        logger.info("%s", confinement.sandbox.told)


def _own_directory(
    prefix: str | None, host: str, port: int, clean: bool, user: User | None
) -> tuple[Path, Any]:
    """Return this node's directory, empty, and the lock that keeps it ours.

    It lies where `user`, as whom jobs are to run, cannot exchange it.
    """
    # Not a directory "dispy": beside a user's program it would be what `import dispy` finds.
    # Whole, because jobs have working directories of their own.
    parent = Path(prefix or tempfile.gettempdir()).absolute()
    root = parent / f"dispy-node-{host.replace(':', '_')}-{port}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if user is not None:
            check_place(user, root)
        # Where everybody may write, somebody may have laid a link there, to a file of ours.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = open(os.open(f"{root}.lock", flags, 0o600), "w")  # noqa: SIM115
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileExistsError):
            root.mkdir()
        if not is_ours(root):
            raise DispyError(f"{root} belongs to another user; choose another --dest_path_prefix")
        left = {inside.name for inside in root.iterdir()}
        let_list(root / "store")
        if clean and left:
            shutil.rmtree(root)
            root.mkdir()
        elif any(name != KEPT and not name.startswith(OWED) for name in left):
            # The others are what clients want to find again.
            logger.warning("%s has files of an earlier node; --clean removes them", root)
        # Jobs of another user come through, and see no names; nobody else comes in.
        root.chmod(0o700 if user is None else 0o711)
    except BlockingIOError:
        raise DispyError(f"a node that uses {root} is running already") from None
    except OSError as error:
        raise DispyError(f"cannot use {root} for files: {error.strerror or error}") from None
    return root, lock
