"""The configuration file: TOML, with a table for each room of settings.

    [node]
    cpus = -1

Which files there are is for `dispy.system.directories` to say.
"""

import sys
from collections.abc import Iterable
from typing import Any

from dispy.model.errors import DispyError


def read_configuration(paths: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return (path, content) of each file, in the order given.

    Raises DispyError for a file that cannot be read or is no TOML.
    """
    return [(path, _read(path)) for path in paths]


def _read(path: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # where no file exists, nobody pays for the parser
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            content: dict[str, Any] = tomllib.load(file)
        return content
    except OSError as error:
        raise DispyError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise DispyError(f"{path}: is not TOML: {error}") from None
