"""How a node keeps its jobs within bounds: as whom they run, what they see, what they may gain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dispy.model.environment import environment_of_jobs, patterns
from dispy.system.interpreter import own_command, own_environment


@dataclass(frozen=True, slots=True)
class Confinement:
    """Under what every nursery of a node is started. By default it is what its program is."""

    environment: Mapping[str, str] = field(default_factory=own_environment)
    new_privileges: bool = False  # programs may gain some, by their setuid bits

    def command(self, descriptor: int) -> list[str]:
        """Return the command of a nursery that finds its node at an open descriptor."""
        return own_command("worker", str(descriptor), *self._words())

    def _words(self) -> list[str]:
        return ["--new-privileges"] if self.new_privileges else []


def confinement_of(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Confinement:
    """Return what the settings of a node for all say; raises DispyError."""
    seen = environment_of_jobs(environment, patterns(settings["pass_env"].value or ""))
    return Confinement(
        environment=own_environment(seen),
        new_privileges=settings["new_privileges"].value,
    )


def confinement_of_own(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Confinement:
    """Return that of a program's own node, whose jobs see what the program does."""
    seen = environment_of_jobs(environment, ["*"])
    return Confinement(
        environment=own_environment(seen), new_privileges=settings["new_privileges"].value
    )
