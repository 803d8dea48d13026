"""From a command's options to its settings, by the one table."""

import sys
from collections.abc import Mapping
from typing import Any

from dispy.client.settings import resolve_here
from dispy.model.setting import Value
from dispy.model.settings import settings_of
from dispy.system.arguments import hide_secrets


def read_options(room: str, options: Mapping[str, Any]) -> dict[str, Value]:
    """Return the settings of a room as the command line, environment and files say.

    options: docopt's. A usage text of ours states defaults in round brackets, because docopt
    would fill in those in square ones, and nobody could tell who said them.

    Raises DispyError for a wrong value, naming where it stands.
    """
    given: dict[str, Value] = {}
    for setting in settings_of(room):
        for option in (setting.option, *setting.aliases):
            if option is not None and options.get(option) not in (None, False):
                given.setdefault(setting.name, Value(options[option], option))
    return resolve_here(room, given)


def warn_of_secret() -> None:
    """Tell whoever typed a secret on the command line who else may have read it."""
    if hide_secrets(sys.argv[1:]):
        seen = "other users of this machine could see it until it was hidden just now"
    else:
        seen = "other users of this machine can see it"
    print(
        f"dispy: --secret: {seen}, and your shell may keep it; put it into a file: `dispy secret`",
        file=sys.stderr,
        flush=True,
    )
