"""Share nodes among many programs: each uses them by `SharedJobCluster`.

Usage:
  dispy scheduler [--nodes=<hosts>] [--host=<address> | --ip_addr=<address>]
                  [--port=<port> | --scheduler_port=<port>] [--node_port=<port>]
                  [--name=<name>] [--ping_interval=<seconds>]
                  [--policy=<name> | --fair_cluster_scheduler | --early_cluster_scheduler]
                  [--data=<directory> | --dest_path_prefix=<directory>] [--clean]
                  [--outlive_power] [--memory=<bytes>] [--log_format=<form>]
                  [--pulse_interval=<seconds>] [--cleanup_nodes] [--cooperative]
                  [--max_file_size=<n>] [--msg_timeout=<seconds>]
                  [--owner_slots=<n>] [--zombie_interval=<minutes>] [--insecure]
                  [--cluster_secret=<text> | --cluster_secret_file=<file>]
                  [--cluster_certfile=<file>] [--cluster_keyfile=<file>]
                  [--cluster_cafile=<file>] [--cluster_revoked=<file>]
                  [--node_secret=<text> | --node_secret_file=<file>]
                  [--node_certfile=<file>] [--node_keyfile=<file>]
                  [--node_cafile=<file>] [--node_revoked=<file>] [-d | --debug]
  dispy scheduler (-h | --help)

Options:
  --nodes=<hosts>     nodes to use, with commas between them: names, addresses, each perhaps with
                      :port, patterns with `*`; any that answer, by default
  -i <address>, --host=<address>  address to listen on for client programs (default: 127.0.0.1)
  --ip_addr=<address>  dispy 4's name of --host
  --port=<port>       TCP port for client programs (default: 51349)
  --scheduler_port=<port>  dispy 4's name of --port
  --node_port=<port>  port of nodes that are named without one, 51348 by default; a pattern then
                      means nodes of that port alone
  --name=<name>       as which clients and nodes show this scheduler; its host name by default
  --policy=<name>     whose jobs go first: fair (equal shares of slots and time), load (who has
                      fewest slots), first (the oldest job), rounds (who was served longest ago),
                      early (the oldest cluster) (default: fair)
  --owner_slots=<n>   jobs' processors that all clusters of one owner (user at host) have together
                      at most; any number by default
  --fair_cluster_scheduler  dispy 4's name of --policy=rounds
  --early_cluster_scheduler  dispy 4's name of --policy=early
  --pulse_interval=<seconds>  seconds between signs of life of nodes, 0.1 to 1000, 5 at most; a
                      node that misses five is lost; 5 by default, or what clusters want
  --ping_interval=<seconds>  seconds between searches for nodes, 1 to 1000; searched for once, by
                      default, and nodes that start later announce themselves
  --data=<directory>  directory for what the scheduler was given, which is there again after a
                      restart; by default one for its address and port in ~/.local/state/dispy;
                      none: keep it in memory, and lose it with the process
  --dest_path_prefix=<directory>  dispy 4's name of --data
  --clean             forget what an earlier scheduler was given: remove it from that directory
  --outlive_power     lose nothing when the machine loses its power either: each group of entries
                      then waits for the disk
  --memory=<bytes>    bytes of arguments and results that are held in memory, as 512M or 4G; what
                      is more lies in the data directory until its turn comes (default: 1G)
  --zombie_interval=<minutes>  minutes for which the jobs and results of a client that is away
                      are kept; 0: for ever (default: 60)
  --max_file_size=<n>  most bytes of a file that comes from a client, or that a job sends to it, as
                      in 10M; 0: any (default: 0)
  --cleanup_nodes     have nodes remove the files of each cluster when it is closed, also where its
                      program wants them kept (cleanup=False)
  --log_format=<form>  how the log is written: text, or json: an object a line, with fields for
                      programs (default: text)
  --cooperative       dispy 4's; without effect, because each program decides for itself alone
  --msg_timeout=<seconds>  dispy 4's; without effect, because links notice silence by themselves
  --insecure          listen on an address that other machines reach, and use nodes of other
                      machines, without encryption: anybody who reaches it can run any program on
                      the nodes
  --cluster_secret=<text>  towards client programs: a secret that both sides share: links are
                      encrypted, and both prove that they have it; better in a file, where nobody
                      sees it
  --cluster_secret_file=<file>  towards client programs: file with the secret, or with several
                      that are valid, one a line; by default ~/.config/dispy/secret, if it is
                      there; none: no secret
  --cluster_certfile=<file>  towards client programs: PEM file with the certificate that this side
                      shows, and asks for
  --cluster_keyfile=<file>  towards client programs: PEM file with its private key; by default in
                      the certfile
  --cluster_cafile=<file>  towards client programs: PEM file of the authority that has signed the
                      certificates of all
  --cluster_revoked=<file>  towards client programs: file with the SHA-256 fingerprints of
                      certificates that count no more
  --node_secret=<text>  towards nodes: a secret that both sides share: links are encrypted, and
                      both prove that they have it; better in a file, where nobody sees it
  --node_secret_file=<file>  towards nodes: file with the secret, or with several that are valid,
                      one a line; by default ~/.config/dispy/secret, if it is there; none: no
                      secret
  --node_certfile=<file>  towards nodes: PEM file with the certificate that this side shows, and
                      asks for
  --node_keyfile=<file>  towards nodes: PEM file with its private key; by default in the certfile
  --node_cafile=<file>  towards nodes: PEM file of the authority that has signed the certificates
                      of all
  --node_revoked=<file>  towards nodes: file with the SHA-256 fingerprints of certificates that
                      count no more
  -d, --debug         log more
  -h, --help          print this text

Programs find it by `SharedJobCluster(..., scheduler_host=ADDRESS)`, or by DISPY_SCHEDULER.

What no option says comes from DISPY_NODES, DISPY_SCHEDULER_HOST, DISPY_SCHEDULER_PORT,
DISPY_SCHEDULER_DATA, DISPY_SECRET_FILE, DISPY_ZOMBIE_INTERVAL, DISPY_CLIENT_DISK,
DISPY_STORE_SIZE, DISPY_LOG_FORMAT and DISPY_BROADCAST, then from the table [scheduler] of
~/.config/dispy/config.toml or /etc/dispy/config.toml.

Ctrl-C or SIGTERM ends it, a second one at once. Whatever ended it, nodes and clients go on when it
is started again: results wait at the nodes, and jobs in its data directory.
"""

import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import gevent
from docopt import docopt
from gevent.event import Event

from dispy.cli.addresses import check_address
from dispy.cli.logs import begin_log
from dispy.cli.options import read_options, warn_of_secret
from dispy.client.discovery import Discovery
from dispy.client.nodes import NodeAllocate, parse_nodes
from dispy.client.search import Search, Wanted
from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.model.setting import Value
from dispy.net.credentials import concerns, load_credentials
from dispy.scheduler.service import Scheduler
from dispy.scheduler.serving import Keeping, Rules, SchedulerService
from dispy.scheduling.choosing import policy_of
from dispy.system.descriptors import raise_descriptor_limit
from dispy.system.directories import user_state
from dispy.system.memory import collect_rarely, keep_freed_memory

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.scheduler")

GOES_ON = "nodes go on with what they have, and all goes on when it is started again"
WITHOUT_EFFECT = {
    "--cooperative": (
        "each program decides by its NodeAllocate how many processors of a node it uses, and "
        "changes nothing for others"
    ),
    "--msg_timeout": "links notice by themselves that the other side is silent",
}
DISPY_4 = {"--fair_cluster_scheduler": "rounds", "--early_cluster_scheduler": "early"}


def main(arguments: Sequence[str]) -> int:
    """Run a scheduler until it is told to end; return its exit status."""
    options = docopt(__doc__, argv=list(arguments))
    keep_freed_memory()
    collect_rarely()
    raise_descriptor_limit()
    for option, policy in DISPY_4.items():
        if options[option]:
            options["--policy"] = policy
    settings = read_options("scheduler", options)
    begin_log(settings["log_format"].value, options["--debug"])
    for option, why in WITHOUT_EFFECT.items():
        if options[option]:
            logger.warning("%s of dispy 4 has no effect: %s", option, why)
    return _serve(settings, options["--clean"])


def credentials_towards(side: str, settings: Mapping[str, Value]) -> Credentials:
    """Return what the scheduler proves itself by on one side, "cluster" or "node"."""
    names = ("secret", "secret_file", "certfile", "keyfile", "cafile", "revoked")
    own = {name: settings[f"{side}_{name}"] for name in names}
    return load_credentials({**own, "insecure": settings["insecure"]})


def _serve(settings: Mapping[str, Value], clean: bool) -> int:
    host, port = settings["host"].value, settings["port"].value
    clients, nodes = (credentials_towards(side, settings) for side in ("cluster", "node"))
    if settings["cluster_secret"].value or settings["node_secret"].value:
        warn_of_secret()
    for concern in {*concerns(clients), *concerns(nodes)}:
        logger.warning("%s", concern)
    check_address(settings["host"], clients, "scheduler")
    search = _search(settings, nodes)
    name = settings["name"].value or socket.gethostname()
    try:
        service = SchedulerService(
            name, host, port, clients, nodes, _keeping(settings, clean), _rules(settings)
        )
    except OSError as error:
        raise DispyError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Another scheduler "
            f"may run there; choose --port or --host"
        ) from None
    discovery = Discovery(cast("Session", Searcher(service.scheduler)))
    discovery.begin(0, search, settings["ping_interval"].value)
    told = Event()

    def tell() -> None:
        if told.is_set():
            os._exit(130)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, tell)
    logger.info("%s", service.room.tell())
    if warning := service.room.warning():
        logger.warning("%s", warning)
    logger.info("scheduler %s serves at %s, port %d", name, host, service.port)
    told.wait()
    logger.info(
        "ending: %s", GOES_ON if service.is_durable else "nodes stop what it has given them"
    )
    discovery.close()
    service.stop()
    return 0


def _rules(settings: Mapping[str, Value]) -> Rules:
    """Return how the scheduler treats its clients."""
    return Rules(
        policy_of(settings["policy"].value),
        settings["owner_slots"].value,
        settings["cleanup_nodes"].value,
        settings["pulse_interval"].value,
    )


def _keeping(settings: Mapping[str, Value], clean: bool) -> Keeping:
    """Return how the scheduler keeps what it is given."""
    directory = settings["data"].value
    if not directory:
        name = f"scheduler-{settings['host'].value}-{settings['port'].value}"
        directory = os.path.join(user_state(os.environ), "dispy", name)
    in_memory = directory.lower() == "none"
    return Keeping(
        None if in_memory else os.path.expanduser(directory),
        settings["outlive_power"].value,
        settings["memory"].value,
        60 * settings["zombie_interval"].value,
        settings["store_size"].value,
        settings["client_disk"].value,
        settings["max_file_size"].value,
        clean,
    )


def _search(settings: Mapping[str, Value], credentials: Credentials) -> Search:
    """Return what to look for; raises DispyError for hosts that cannot be."""
    elsewhere = credentials.protected or credentials.insecure
    wanted = Wanted(
        nodes_of(settings["nodes"].value or "*"), settings["node_port"].value, elsewhere,
        False, settings["broadcast"].value, credentials.secrets,
    )  # fmt: skip
    return Search(wanted)


def nodes_of(text: str) -> list[NodeAllocate]:
    """Return what `--nodes` means: "a, b:51400, 10.0.0.*"; raises DispyError."""
    named: list[Any] = []
    for part in filter(None, map(str.strip, text.split(","))):
        host, colon, port = part.rpartition(":")
        if colon and ":" not in host and port.isdigit():
            named.append((host, int(port)))
        else:
            named.append(part)
    return parse_nodes(named)


class Searcher:
    """What the search for nodes asks of a session."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
