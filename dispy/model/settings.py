"""Every setting, once: what it is called, what it may be, and where it may be said.

Options, `JobCluster` arguments, `DISPY_...` variables and the configuration file are read by this
table, or compared with it by a test. Pure: whoever calls hands in the environment and the
content of files. What was said nearest to the call wins: argument or option, environment, the
user's file, the system's file, default.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from dispy.model.errors import DispyError
from dispy.model.limits import GRACE_SECONDS, NICE_MOST
from dispy.model.operator_settings import TABLE as OPERATOR
from dispy.model.scheduler_settings import TABLE as SCHEDULER
from dispy.model.setting import Setting, Value


def _credentials(room: str) -> tuple[Setting, ...]:
    """Return the settings by which a node, a client or an operator proves itself."""

    def one(name: str, what: str, argument: bool, **more: Any) -> Setting:
        option = f"--{name.replace('_', '-')}" if room != "client" else None
        more["argument"] = argument and room == "client"
        return Setting(room=room, name=name, kind=str, help=what, option=option, **more)

    return (
        one(
            "secret",
            "a secret that both sides share: links are encrypted, and both prove that they have "
            "it; better in a file, where nobody sees it",
            argument=True, in_file=False, hidden=True,
        ),
        one(
            "secret_file",
            "file with the secret, or with several that are valid, one a line; by default "
            "~/.config/dispy/secret, if it is there; none: no secret",
            argument=False, variable="DISPY_SECRET_FILE",
        ),
        one(
            "certfile",
            "PEM file with the certificate that this side shows, and asks the other for",
            argument=True, variable="DISPY_CERTFILE",
        ),
        one(
            "keyfile", "PEM file with its private key; by default in the certfile",
            argument=True, variable="DISPY_KEYFILE",
        ),
        one(
            "cafile",
            "PEM file of the authority that has signed the certificates of all; without it both "
            "sides have the same certificate",
            argument=True, variable="DISPY_CAFILE",
        ),
        one(
            "revoked",
            "file with the SHA-256 fingerprints of certificates that count no more, one a line",
            argument=False, variable="DISPY_REVOKED",
        ),
    )  # fmt: skip


_TABLE = (
    Setting(
        room="node", name="cpus", kind=int, unit="processors", low=-4096, high=4096,
        words={"all": None}, option="--cpus", variable="DISPY_CPUS",
        help="processors to offer; negative: all but so many",
    ),
    Setting(
        room="node", name="host", kind=str, default="127.0.0.1",
        option="--host", aliases=("--ip_addr",), variable="DISPY_NODE_HOST",
        help="address to listen on",
    ),
    Setting(
        room="node", name="port", kind=int, default=51348, low=0, high=65535,
        option="--port", aliases=("--node_port",), variable="DISPY_NODE_PORT",
        help="TCP and UDP port",
    ),
    Setting(
        room="node", name="name", kind=str, option="--name", variable="DISPY_NODE_NAME",
        help="as which clients show this node; its host name by default",
    ),
    Setting(
        room="node", name="dest_path_prefix", kind=str,
        option="--dest_path_prefix", variable="DISPY_DEST_PATH_PREFIX",
        help="where the files of computations go; below the directory for temporary files "
        "by default",
    ),
    Setting(
        room="node", name="client_shutdown", kind=bool, default=False,
        option="--client_shutdown", variable="DISPY_CLIENT_SHUTDOWN",
        help="let a client's cleanup end this node (dispynode_shutdown)",
    ),
    Setting(
        room="node", name="max_file_size", kind=int, unit="bytes", default=0, low=0,
        option="--max_file_size", variable="DISPY_MAX_FILE_SIZE",
        help="most bytes of a file that comes to the node, or that a job sends to its client, as "
        "in 10M; 0: any",
    ),
    Setting(
        room="node", name="store_size", kind=int, unit="bytes", low=0, variable="DISPY_STORE_SIZE",
        help="bytes of files and large values that the node keeps in case they are needed again; "
        "a tenth of the disk, 10 GiB at most, by default",
    ),
    Setting(
        room="node", name="client_disk", kind=int, unit="bytes", low=0, high=2**62,
        variable="DISPY_CLIENT_DISK",
        help="most bytes of the disk that the files of one client take, in the store and in "
        "directories of its computations, and its results; half of what is free at the start, by "
        "default; 0: any",
    ),
    Setting(
        room="node", name="client_memory", kind=int, unit="bytes", low=0, high=2**62,
        variable="DISPY_CLIENT_MEMORY",
        help="most bytes of memory that the node itself takes for one client: arguments of its "
        "jobs, and results on their way; half of the machine's, by default; 0: any",
    ),
    Setting(
        room="node", name="zombie_interval", kind=float, unit="minutes", default=60, low=0,
        high=1e7, option="--zombie_interval", variable="DISPY_ZOMBIE_INTERVAL",
        help="minutes for which the jobs and results of a client that is away are kept; 0: for "
        "ever",
    ),
    Setting(
        room="node", name="spill_above", kind=int, unit="bytes", default=256 << 20, low=1 << 20,
        high=2**62, variable="DISPY_SPILL_ABOVE",
        help="bytes of results that one client has not acknowledged beyond which they go to disk; "
        "a quarter of client_memory at most",
    ),
    Setting(
        # Typed in full, each time: neither a file nor the environment opens a machine.
        room="node", name="insecure", kind=bool, default=False, option="--insecure", in_file=False,
        help="listen on an address that other machines reach, without encryption: anybody who "
        "reaches it can run any program here, other users of this machine included",
    ),
    *_credentials("node"),
    Setting(
        room="node", name="log_format", kind=str, default="text", option="--log_format",
        words={"text": "text", "json": "json"}, variable="DISPY_LOG_FORMAT",
        help="how the log is written: text, or json: an object a line, with fields for programs",
    ),
    Setting(
        room="node", name="broadcast", kind=bool, default=True, variable="DISPY_BROADCAST",
        help="be found by other machines of the network, where the address lets them in",
    ),
    Setting(
        room="node", name="memory_reserve", kind=int, unit="bytes", low=0, high=2**62,
        variable="DISPY_MEMORY_RESERVE",
        help="memory that is kept free: with less of it no job is started until there is more; "
        "a twentieth of the machine's, 1 GB at most, by default; 0: none",
    ),
    Setting(
        room="node", name="pass_env", kind=str, variable="DISPY_PASS_ENV",
        help="names of environment variables that jobs see beside the usual ones, separated by "
        "commas; `*` in a name stands for any letters, and alone for all",
    ),
    Setting(
        room="node", name="new_privileges", kind=bool, default=False,
        variable="DISPY_NEW_PRIVILEGES",
        help="let programs that jobs start gain rights by their setuid bits, as sudo and some "
        "versions of ping need",
    ),
    Setting(
        room="node", name="sandbox", kind=bool, default=False,
        option="--sandbox", variable="DISPY_SANDBOX",
        help="have the jobs of each cluster run in a sandbox of its own (bubblewrap; Linux): they "
        "see neither the machine's files, but for programs, nor its processes and network",
    ),
    Setting(
        room="node", name="sandbox_network", kind=bool, default=False,
        variable="DISPY_SANDBOX_NETWORK",
        help="let jobs in a sandbox use the machine's network",
    ),
    Setting(
        room="node", name="sandbox_paths", kind=str, variable="DISPY_SANDBOX_PATHS",
        help="files and directories that jobs in a sandbox may read too, separated by colons; `*` "
        "stands for any letters; devices can be used as the node's user may",
    ),
    Setting(
        room="node", name="sandbox_writable", kind=str, variable="DISPY_SANDBOX_WRITABLE",
        help="the same for what they may also write to",
    ),
    Setting(
        room="node", name="run_as", kind=str, option="--run-as", variable="DISPY_RUN_AS",
        help="user of this machine as whom jobs run, or user:group; the node must be root's",
    ),
    Setting(
        room="node", name="suid", kind=int, low=1, high=2**32 - 2,
        option="--suid", variable="DISPY_SUID",
        help="the same by the user's number, without the groups that it is in",
    ),
    Setting(
        room="node", name="sgid", kind=int, low=1, high=2**32 - 2,
        option="--sgid", variable="DISPY_SGID",
        help="number of the group of such jobs; the user's own by default",
    ),
    Setting(
        room="node", name="max_processes", kind=int, unit="processes", low=16, high=2**22,
        variable="DISPY_MAX_PROCESSES",
        help="most processes and threads that the user whom jobs run as may have, in all; by "
        "default 256 for each processor of the machine, and 4096 at least, for another user than "
        "the node's",
    ),
    Setting(
        room="client", name="node_port", kind=int, low=1, high=65535,
        argument=True, variable="DISPY_NODE_PORT",
        help="port of nodes that are named without one, 51348 by default; a pattern then means "
        "nodes of that port alone",
    ),
    Setting(
        room="client", name="insecure", kind=bool, default=False,
        argument=True, variable="DISPY_INSECURE",
        help="use nodes of other machines, and of other users of this one, without encryption",
    ),
    *_credentials("client"),
    Setting(
        room="client", name="broadcast", kind=bool, default=True, variable="DISPY_BROADCAST",
        help="ask other machines of the network for nodes, where they are not named one by one",
    ),
    Setting(
        room="client", name="scheduler", kind=str, default="127.0.0.1", variable="DISPY_SCHEDULER",
        help="host of the shared scheduler of a SharedJobCluster that names none",
    ),
    Setting(
        room="client", name="local_node", kind=bool, default=True,
        argument=True, variable="DISPY_LOCAL_NODE",
        help="start a node of our own where none is found",
    ),
    Setting(
        room="client", name="recover_file", kind=str, argument=True, variable="DISPY_RECOVER_FILE",
        help="file by which the results of a program that died are recovered; `_dispy_` and the "
        "time, in the current directory, by default; none: no file",
    ),
    Setting(
        room="client", name="cpus", kind=int, default=1, unit="processors", low=1, high=4096,
        argument=True, variable="DISPY_JOB_CPUS",
        help="processors that each job needs, of one node",
    ),
    Setting(
        room="client", name="retries", kind=int, unit="runs", low=0, high=1_000_000,
        argument=True, variable="DISPY_RETRIES",
        help="how often a job may run again whose process died, or whose node was lost; by "
        "default not at all, and where the cluster is reentrant twice, lost nodes not counted",
    ),
    Setting(
        room="client", name="setup_timeout", kind=float, default=0.0, unit="seconds", low=0,
        high=1e6, argument=True, variable="DISPY_SETUP_TIMEOUT",
        help="seconds that setup may take on a node before it is ended; 0: any time",
    ),
    Setting(
        room="client", name="stream", kind=bool, default=False,
        argument=True, variable="DISPY_STREAM",
        help="show what jobs write while they run, each line led by its job and node",
    ),
    Setting(
        room="client", name="isolation", kind=str, words={"worker": "worker", "job": "job"},
        argument=True, variable="DISPY_ISOLATION",
        help='"worker": processes are used again and cleaned between jobs; "job": each job has '
        'one of its own, with what setup left; by default "job" where there is a setup',
    ),
    Setting(
        room="client", name="loglevel", kind=int, default=logging.INFO, low=0, high=100,
        words={
            "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
            "error": logging.ERROR, "critical": logging.CRITICAL,
        },
        argument=True, variable="DISPY_LOGLEVEL",
        help="of dispy's own messages: those of this level and above are written",
    ),
    Setting(
        room="client", name="max_file_size", kind=int, unit="bytes", default=0, low=0,
        argument=True, variable="DISPY_MAX_FILE_SIZE",
        help="most bytes of a file that a job may send to this program, as in 10M; 0: any",
    ),
    Setting(
        room="client", name="max_result_size", kind=int, unit="bytes", default=1 << 30, low=0,
        argument=True, variable="DISPY_MAX_RESULT_SIZE",
        help="most bytes of a job's result, as in 10M; 0: any",
    ),
    Setting(
        room="client", name="pulse_interval", kind=float, unit="seconds", low=0.1, high=1000,
        argument=True, variable="DISPY_PULSE_INTERVAL",
        help="seconds between signs of life, 0.1 to 1000; a node that misses five is lost",
    ),
    Setting(
        room="client", name="ping_interval", kind=float, unit="seconds", low=1, high=1000,
        argument=True, variable="DISPY_PING_INTERVAL",
        help="seconds between searches for nodes, 1 to 1000",
    ),
    Setting(
        room="client", name="timeout", kind=float, unit="seconds", low=0, high=1e9,
        argument=True, variable="DISPY_TIMEOUT",
        help="seconds that a job may run; 0: no limit",
    ),
    Setting(
        room="client", name="cpu_time", kind=float, unit="seconds", low=0, high=1e9,
        argument=True, variable="DISPY_CPU_TIME",
        help="seconds of processor time that a job may take, with its child processes; 0: no limit",
    ),
    Setting(
        room="client", name="memory", kind=int, unit="bytes", low=0, high=2**62,
        argument=True, variable="DISPY_MEMORY",
        help="memory that a job may take beyond what was there at its start, with its child "
        "processes, such as 500000, 512 MiB or 2 GB; 0: no limit",
    ),
    Setting(
        room="client", name="grace", kind=float, unit="seconds", default=GRACE_SECONDS,
        low=0, high=86400, argument=True, variable="DISPY_GRACE",
        help="seconds that a job which ran out of time may take to save before it is killed",
    ),
    Setting(
        room="client", name="env", kind=dict, argument=True,
        help="environment variables for jobs, by name",
    ),
    Setting(
        room="client", name="nice", kind=int, unit="steps", low=0, high=NICE_MOST,
        argument=True, variable="DISPY_NICE",
        help="steps by which jobs are less urgent to their machine than its node, 0 to 19",
    ),
    Setting(
        room="client", name="jobs_per_worker", kind=int, unit="jobs", low=0, high=2**62,
        argument=True, variable="DISPY_JOBS_PER_WORKER",
        help="jobs after which a worker process is replaced; 0: never",
    ),
    Setting(
        room="client", name="worker_growth", kind=int, unit="bytes", low=0, high=2**62,
        argument=True, variable="DISPY_WORKER_GROWTH",
        help="memory by which a worker process may have grown between two jobs before it is "
        "replaced, such as 512 MiB; 0: any",
    ),
    *SCHEDULER,
    *OPERATOR,
    *_credentials("operator"),
)  # fmt: skip
SETTINGS = {setting.key: setting for setting in _TABLE}


def settings_of(room: str) -> list[Setting]:
    """Return the settings of a room ("node", say), in the order of the table."""
    return [setting for setting in _TABLE if setting.room == room]


def resolve(
    room: str,
    given: Mapping[str, Value],
    environment: Mapping[str, str],
    files: Iterable[tuple[str, Mapping[str, Any]]],
) -> dict[str, Value]:
    """Return the value of each setting of a room, by its name.

    given: what the call or the command line says; text, where it came as an option's.
    files: (path, content) of configuration files, the strongest first.

    Raises DispyError, which names the place where a wrong value, or an unknown name, stands.
    """
    said = [(path, _flatten(content, path)) for path, content in files]
    return {setting.name: _find(setting, given, environment, said) for setting in settings_of(room)}


def processors_to_offer(wanted: Value, here: int) -> int:
    """Return how many processors a node offers by node.cpus, on a machine that has `here`.

    Raises DispyError where that would be none.
    """
    if wanted.value is None:
        return here
    if wanted.value == 0:
        raise DispyError(f"{wanted.source}: 0 processors would run nothing; `all` offers all")
    if wanted.value <= -here:
        raise DispyError(
            f"{wanted.source}: {wanted.value} would leave nothing to offer: this machine has "
            f"{here} processors"
        )
    cpus: int = wanted.value if wanted.value > 0 else here + wanted.value
    return cpus


def _find(
    setting: Setting,
    given: Mapping[str, Value],
    environment: Mapping[str, str],
    files: Iterable[tuple[str, Mapping[str, Any]]],
) -> Value:
    here = given.get(setting.name)
    if here is not None:
        reader = setting.read if isinstance(here.value, str) and setting.option else setting.check
        return Value(reader(here.value, here.source), here.source)
    variable = setting.variable
    if variable is not None and environment.get(variable, "").strip():
        return Value(setting.read(environment[variable], variable), variable)
    for path, content in files:
        if setting.key in content:
            source = f"{path}, {setting.key}"
            return Value(setting.check(content[setting.key], source), source)
    return Value(setting.default, "default")


def _flatten(content: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a file's values by full name; raises DispyError for what is no setting."""
    found: dict[str, Any] = {}
    for room, values in content.items():
        if not isinstance(values, Mapping):
            raise _unknown(room, path, "stands outside of a table")
        found.update({f"{room}.{name}": value for name, value in values.items()})
    known = [setting.key for setting in _TABLE if setting.in_file]
    for key in found:
        if key in SETTINGS and key not in known:
            way = SETTINGS[key].option or f"the argument {SETTINGS[key].name}"
            raise DispyError(f"{path}: {key} can only be said by {way}")
        if key not in known:
            raise _unknown(key, path, "is no setting")
    return found


def _unknown(key: str, path: str, what: str) -> DispyError:
    import difflib  # 3 ms, which nobody without a mistake must pay

    known = [setting.key for setting in _TABLE if setting.in_file]
    by_name = {name.partition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, known, n=1)
    if not near:
        near = [by_name[n] for n in difflib.get_close_matches(key.split(".")[-1], by_name, n=1)]
    hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(known)}"
    return DispyError(f"{path}: {key} {what}; {hint}")
