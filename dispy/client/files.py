"""The files and directories that a cluster or a job depends on, hashed at once.

Code that it names is taken by `dispy.client.code`.
"""

import logging
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from dispy.client.depends import is_file
from dispy.model.errors import DispyError
from dispy.shipping.contents import Content
from dispy.shipping.files import LINK, manifest, why_not_inside

logger = logging.getLogger("dispy.client")


class Files(NamedTuple):
    """A manifest, and the contents that it names."""

    entries: list[list[Any]]
    contents: list[Content]


def take_files(elements: Iterable[Any], name: str = "depends") -> Files:
    """Return the files among the elements of `depends`, hashed; passes over those that are code.

    Raises DispyError for files that cannot be sent.
    """
    paths = list(filter(is_file, elements))
    try:
        return Files(*manifest(paths)) if paths else Files([], [])
    except DispyError as error:
        raise DispyError(f"{name}: {error}") from None


def join_files(files: Files, more: Files, where: str) -> Files:
    """Return both together; raises DispyError where a place would have two different files."""
    links = {entry[0] for entry in files.entries + more.entries if entry[3] == LINK}
    joined: dict[str, list[Any]] = {}
    for entry in files.entries + more.entries:
        other = joined.setdefault(entry[0], entry)
        if other[1] != entry[1] and entry[0] not in links:
            raise DispyError(f"depends of {where}: {entry[0]!r} is another file for all nodes")
        if other[3] == LINK and entry[3] != LINK:
            joined[entry[0]] = entry  # a file's own name goes before a second one
    return Files(list(joined.values()), files.contents + more.contents)


def check_dest_path(given: Any) -> str | None:
    """Return where on a node, below what is this client's, a computation works; None: anywhere."""
    if given is None:
        return None
    if not isinstance(given, (str, os.PathLike)) or not isinstance(os.fspath(given), str):
        raise DispyError(f"dest_path is a text, not {given!r}")
    path = os.fspath(given).replace(os.sep, "/")
    if path.startswith("/"):
        logger.warning("dest_path %r is below a directory of each node; taken without its /", given)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        return None
    path = "/".join(parts)
    why = why_not_inside(path)
    if why is not None:
        raise DispyError(f"dest_path {given!r}: {why}")
    return path
