"""What a cluster or a job depends on: files and directories, checked and hashed at once."""

import logging
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from dispy.model.errors import DispyError
from dispy.shipping.contents import Content
from dispy.shipping.files import manifest, why_not_inside

logger = logging.getLogger("dispy.client")


class Depends(NamedTuple):
    """`files` is a manifest, `contents` what it names; `code` is all that is no path."""

    files: list[list[Any]]
    contents: list[Content]
    code: list[Any]


def take_depends(given: Any, what: str = "depends") -> Depends:
    """Return what `depends` names; raises DispyError for files that cannot be sent."""
    if isinstance(given, (str, os.PathLike)):
        given = [given]
    if not isinstance(given, Iterable):
        raise DispyError(f"{what} is a list of files and of code, not {given!r}")
    elements = list(given)
    paths = [one for one in elements if isinstance(one, (str, os.PathLike))]
    code = [one for one in elements if not isinstance(one, (str, os.PathLike))]
    if not paths:
        return Depends([], [], code)
    try:
        return Depends(*manifest(paths), code)
    except DispyError as error:
        raise DispyError(f"{what}: {error}") from None


def take_job_depends(given: Any) -> Depends:
    """Return what a job's `dispy_job_depends` names; raises DispyError."""
    return take_depends(given, "dispy_job_depends")


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
