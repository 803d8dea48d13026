"""The user's own modules that go along with a computation: files like those of `depends`.

They lie in a directory of their own on a node, whose name says what is in it: two computations
that share a `dest_path` do not get each other's.
"""

import logging
import os
import time
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dispy.model.errors import DispyError
from dispy.shipping.contents import Content, new_digest

if TYPE_CHECKING:
    from dispy.shipping.modules import ModuleFile

logger = logging.getLogger("dispy.client")

_PLACE = ".dispy-modules-"
_began = time.time()  # this module is imported with `dispy.JobCluster`


def module_files(
    imported: Collection[str], named: Sequence[ModuleType], besides: Collection[str] = ()
) -> "list[ModuleFile]":
    """Return the files of the modules `named`, and of the user's own among those `imported`.

    Of the latter those whose places are `besides` are left out. Raises DispyError for a module
    that has no files.
    """
    if not imported and not named:
        return []
    # Late: nothing else needs it, and cloudpickle, which has been imported, is the dear part.
    from dispy.shipping.modules import files_of, own_modules

    files = {file for module in named for file in files_of(module)}
    files.update(file for file in own_modules(imported) if file.place not in besides)
    for file in files:
        if os.stat(file.path).st_mtime > _began:
            logger.info("%s has changed since this program began: nodes get it as it is", file.path)
    return sorted(files)


def module_manifest(files: "Sequence[ModuleFile]") -> tuple[str, list[list[Any]], list[Content]]:
    """Return the directory for these files, their manifest, and the contents that it names.

    Raises DispyError for a file that cannot be read.
    """
    entries: list[list[Any]] = []
    contents = []
    for place, path in files:
        try:
            content, status = Content.of_file(path), os.stat(path)
        except OSError as error:
            raise DispyError(f"module {path!r} cannot be read: {error.strerror}") from None
        contents.append(content)
        entries.append([place, content.digest, content.size, 0o644, status.st_mtime_ns])
    digest = new_digest(repr(entries).encode()).hexdigest()[:16]
    directory = _PLACE + digest
    for entry in entries:
        entry[0] = f"{directory}/{entry[0]}"
    return directory, entries, contents
