"""What may be given as `depends`: files, directories and code, in one list.

`dispy.client.files` takes the files of it and `dispy.client.code` the code.
"""

import os
from collections.abc import Iterable
from typing import Any

from dispy.model.errors import DispyError


def is_file(element: Any) -> bool:
    """Say whether an element of `depends` is the path of a file or directory."""
    return isinstance(element, (str, os.PathLike))


def check_files(given: Any, name: str = "depends") -> list[Any]:
    """Return what was given for `depends` as a list; raises DispyError for what is none."""
    if is_file(given):
        return [given]
    if given is not None and not isinstance(given, Iterable):
        raise DispyError(f"{name} is a list of files and of code, not {given!r}")
    return list(given or ())
