"""The settings of `dispy scheduler`, for the one table in `dispy.model.settings`."""

from typing import Any

from dispy.model.ports import SCHEDULER_PORT
from dispy.model.setting import Setting

SECRET = (
    "a secret that both sides share: links are encrypted, and both prove that they have it; better "
    "in a file, where nobody sees it"
)
SECRET_FILE = (
    "file with the secret, or with several that are valid, one a line; by default "
    "~/.config/dispy/secret, if it is there; none: no secret"
)


def _credentials(side: str, whom: str) -> tuple[Setting, ...]:
    """Return the settings by which a scheduler proves itself on one side."""

    def one(name: str, what: str, **more: Any) -> Setting:
        return Setting(
            room="scheduler", name=f"{side}_{name}", kind=str, help=f"towards {whom}: {what}",
            option=f"--{side}_{name}", **more,
        )  # fmt: skip

    return (
        one("secret", SECRET, in_file=False, hidden=True),
        one("secret_file", SECRET_FILE, variable="DISPY_SECRET_FILE"),
        one("certfile", "PEM file with the certificate that this side shows, and asks for"),
        one("keyfile", "PEM file with its private key; by default in the certfile"),
        one("cafile", "PEM file of the authority that has signed the certificates of all"),
        one("revoked", "file with the SHA-256 fingerprints of certificates that count no more"),
    )


TABLE = (
    Setting(
        room="scheduler", name="nodes", kind=str, option="--nodes", variable="DISPY_NODES",
        help="nodes to use, with commas between them: names, addresses, each perhaps with :port, "
        "patterns with `*`; any that answer, by default",
    ),
    Setting(
        room="scheduler", name="host", kind=str, default="127.0.0.1",
        option="--host", aliases=("--ip_addr",), variable="DISPY_SCHEDULER_HOST",
        help="address to listen on for client programs",
    ),
    Setting(
        room="scheduler", name="port", kind=int, default=SCHEDULER_PORT, low=0, high=65535,
        option="--port", aliases=("--scheduler_port",), variable="DISPY_SCHEDULER_PORT",
        help="TCP port for client programs",
    ),
    Setting(
        room="scheduler", name="node_port", kind=int, low=1, high=65535, option="--node_port",
        help="port of nodes that are named without one, 51348 by default; a pattern then means "
        "nodes of that port alone",
    ),
    Setting(
        room="scheduler", name="name", kind=str, option="--name",
        help="as which clients and nodes show this scheduler; its host name by default",
    ),
    Setting(
        room="scheduler", name="policy", kind=str, default="fair", option="--policy",
        words={name: name for name in ("load", "fair", "first", "rounds", "early")},
        help="whose jobs go first: fair (equal shares of slots and time), load (who has fewest "
        "slots), first (the oldest job), rounds (who was served longest ago), early (the oldest "
        "cluster)",
    ),
    Setting(
        room="scheduler", name="owner_slots", kind=int, unit="slots", low=1, high=2**31,
        option="--owner_slots",
        help="jobs' processors that all clusters of one owner (user at host) have together at "
        "most; any number by default",
    ),
    Setting(
        room="scheduler", name="pulse_interval", kind=float, unit="seconds", low=0.1, high=1000,
        option="--pulse_interval",
        help="seconds between signs of life of nodes, 0.1 to 1000, 5 at most; a node that misses "
        "five is lost; 5 by default, or what clusters want",
    ),
    Setting(
        room="scheduler", name="ping_interval", kind=float, unit="seconds", low=1, high=1000,
        option="--ping_interval",
        help="seconds between searches for nodes, 1 to 1000; searched for once, by default, and "
        "nodes that start later announce themselves",
    ),
    Setting(
        room="scheduler", name="zombie_interval", kind=float, unit="minutes", default=60, low=0,
        high=1e7, option="--zombie_interval", variable="DISPY_ZOMBIE_INTERVAL",
        help="minutes for which the jobs and results of a client that is away are kept; 0: for "
        "ever",
    ),
    Setting(
        room="scheduler", name="data", kind=str,
        option="--data", aliases=("--dest_path_prefix",), variable="DISPY_SCHEDULER_DATA",
        help="directory for what the scheduler was given, which is there again after a restart; "
        "by default one for its address and port in ~/.local/state/dispy; none: keep it in memory, "
        "and lose it with the process",
    ),
    Setting(
        room="scheduler", name="outlive_power", kind=bool, default=False, option="--outlive_power",
        help="lose nothing when the machine loses its power either: each group of entries then "
        "waits for the disk",
    ),
    Setting(
        room="scheduler", name="memory", kind=int, unit="bytes", default=1 << 30, low=1 << 20,
        option="--memory",
        help="bytes of arguments and results that are held in memory, as 512M or 4G; what is more "
        "lies in the data directory until its turn comes",
    ),
    Setting(
        room="scheduler", name="max_file_size", kind=int, unit="bytes", default=0, low=0,
        option="--max_file_size", variable="DISPY_MAX_FILE_SIZE",
        help="most bytes of a file that comes from a client, or that a job sends to it, as in 10M; "
        "0: any",
    ),
    Setting(
        room="scheduler", name="cleanup_nodes", kind=bool, default=False, option="--cleanup_nodes",
        help="have nodes remove the files of each cluster when it is closed, also where its "
        "program wants them kept (cleanup=False)",
    ),
    Setting(
        room="scheduler", name="log_format", kind=str, default="text", option="--log_format",
        words={"text": "text", "json": "json"}, variable="DISPY_LOG_FORMAT",
        help="how the log is written: text, or json: an object a line, with fields for programs",
    ),
    Setting(
        room="scheduler", name="client_disk", kind=int, unit="bytes", low=0, high=2**62,
        variable="DISPY_CLIENT_DISK",
        help="most bytes of the disk that files and large values of one client take here; half of "
        "what is free at the start, by default; 0: any",
    ),
    Setting(
        room="scheduler", name="store_size", kind=int, unit="bytes", low=0,
        variable="DISPY_STORE_SIZE",
        help="bytes of files and large values that are kept in case they are needed again; a tenth "
        "of the disk, 10 GiB at most, by default",
    ),
    Setting(
        room="scheduler", name="broadcast", kind=bool, default=True, variable="DISPY_BROADCAST",
        help="ask other machines of the network for nodes, where they are not named one by one",
    ),
    Setting(
        # Typed in full, each time: neither a file nor the environment opens a machine.
        room="scheduler", name="insecure", kind=bool, default=False, option="--insecure",
        in_file=False,
        help="listen on an address that other machines reach, and use nodes of other machines, "
        "without encryption: anybody who reaches it can run any program on the nodes",
    ),
    *_credentials("cluster", "client programs"),
    *_credentials("node", "nodes"),
)  # fmt: skip
