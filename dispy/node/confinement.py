"""How a node keeps its jobs within bounds: as whom they run, what they see, what they may gain."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispy.model.environment import environment_of_jobs, patterns
from dispy.system.interpreter import own_command, own_environment

if TYPE_CHECKING:
    from dispy.node.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Confinement:
    """Under what every nursery of a node is started. By default it is what its program is."""

    environment: Mapping[str, str] = field(default_factory=own_environment)
    new_privileges: bool = False  # programs may gain some, by their setuid bits
    sandbox: "Sandbox | None" = None  # of its own for each computation

    def command(self, descriptor: int) -> list[str]:
        """Return the command of a nursery that finds its node at an open descriptor."""
        return own_command("worker", str(descriptor), *self._words())

    def command_inside(self, descriptor: int, directory: Path, opened: int) -> list[str]:
        """Return the command of one in a sandbox, for the computation that works in a directory.

        `opened`: a descriptor of the directory.
        """
        assert self.sandbox is not None, "asked for where there is one"
        return [*self.sandbox.words(str(directory), opened), *self.command(descriptor)]

    def _words(self) -> list[str]:
        return ["--new-privileges"] if self.new_privileges else []


def confinement_of(
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    root: Path,
    hidden: Iterable[str] = (),
) -> Confinement:
    """Return what the settings of a node for all say; raises DispyError.

    root: the node's directory. hidden: files that jobs in a sandbox may not see.
    """
    seen = own_environment(
        environment_of_jobs(environment, patterns(settings["pass_env"].value or ""))
    )
    sandbox = None
    if settings["sandbox"].value:
        from dispy.node.sandbox import sandbox_of  # 3 ms that other nodes need not wait for

        sandbox = sandbox_of(settings, seen, root, hidden)
    return Confinement(seen, settings["new_privileges"].value, sandbox)


def confinement_of_own(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Confinement:
    """Return that of a program's own node, whose jobs see what the program does."""
    seen = environment_of_jobs(environment, ["*"])
    return Confinement(
        environment=own_environment(seen), new_privileges=settings["new_privileges"].value
    )
