"""How a node keeps its jobs within bounds: as whom they run, what they see, what they may gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dispy.model.environment import environment_of_jobs, patterns
from dispy.model.errors import DispyError
from dispy.system.interpreter import own_command, own_environment
from dispy.system.processes import processors
from dispy.system.users import User, find_user, user_of_numbers

PROCESSES = 256  # that another user may have for each processor: each job as many threads as those
PROCESSES_LEAST = 4096

if TYPE_CHECKING:
    from dispy.node.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Confinement:
    """Under what every nursery of a node is started. By default it is what its program is."""

    environment: Mapping[str, str] = field(default_factory=own_environment)
    new_privileges: bool = False  # programs may gain some, by their setuid bits
    user: User | None = None  # whom jobs run as; None: as whom the node does
    max_processes: int | None = None  # of that user, threads counted; None: as many as may be
    sandbox: "Sandbox | None" = None  # of its own for each computation

    def command(self, descriptor: int) -> list[str]:
        """Return the command of a nursery that finds its node at an open descriptor."""
        return own_command("worker", str(descriptor), *self._words())

    def server(self, descriptor: int) -> list[str]:
        """Return the command of what forks nurseries, for a node at an open descriptor."""
        return own_command("worker", "--forkserver", str(descriptor), *self._words())

    def inside(self, command: Sequence[str], directory: str, opened: int) -> list[str]:
        """Return a command of ours for the sandbox of a computation that works in a directory.

        `opened`: a descriptor of the directory.
        """
        assert self.sandbox is not None, "asked for where there is one"
        return [*self.sandbox.words(directory, opened), *command]

    def trial(self, directory: str) -> list[str]:
        """Return the command that ends with status 0 if a nursery could work in a directory."""
        return own_command("worker", "--try", directory, *self._words())

    @property
    def start(self) -> dict[str, Any]:
        """What `subprocess.Popen` takes for both."""
        return {"env": self.environment, **(self.user.start if self.user else {})}

    def _words(self) -> list[str]:
        words = ["--new-privileges"] if self.new_privileges else []
        if self.max_processes is not None:
            words.append(f"--max-processes={self.max_processes}")
        return words


def confinement_of(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Confinement:
    """Return what the settings of a node for all say; raises DispyError."""
    user = _user(settings)
    seen = environment_of_jobs(environment, patterns(settings["pass_env"].value or ""))
    max_processes = settings["max_processes"].value
    if max_processes is None and user is not None:
        max_processes = max(PROCESSES_LEAST, PROCESSES * processors())
    return Confinement(
        environment=own_environment({**seen, **(user.environment if user else {})}),
        new_privileges=settings["new_privileges"].value,
        user=user,
        max_processes=max_processes,
    )


def _user(settings: Mapping[str, Any]) -> User | None:
    """Return the user as whom jobs are to run; None: nobody said so."""
    run_as, suid, sgid = settings["run_as"], settings["suid"], settings["sgid"]
    if run_as.value is not None and suid.value is not None:
        raise DispyError(f"{run_as.source} and {suid.source} both name a user; say one of them")
    if sgid.value is not None and suid.value is None:
        raise DispyError(f"{sgid.source}: a group without a user; say --suid too")
    if run_as.value is not None:
        return find_user(run_as.value, run_as.source)
    if suid.value is not None:
        return user_of_numbers(suid.value, sgid.value, suid.source)
    return None


def confinement_of_own(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Confinement:
    """Return that of a program's own node, whose jobs see what the program does, as its user."""
    seen = environment_of_jobs(environment, ["*"])
    return Confinement(
        environment=own_environment(seen), new_privileges=settings["new_privileges"].value
    )
