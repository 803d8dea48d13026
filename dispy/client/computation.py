"""What a cluster's jobs run, made ready to be sent: a function or a program."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

from dispy.client.code import sort_code
from dispy.client.modules import module_files, module_manifest
from dispy.model import overrides
from dispy.model.errors import DispyError
from dispy.shipping.bundle import Bundle, make_bundle
from dispy.shipping.contents import Content

logger = logging.getLogger("dispy.client")

_RUN_BY_OTHERS = (".py", ".java")  # need not be executable themselves


class Computation(NamedTuple):
    """A function or program as the nodes get it."""

    name: str
    settings: dict[str, Any]  # what a node has to know before it loads it
    content: bytes  # a packed bundle
    is_program: bool
    modules: frozenset[str]  # the places of the files of its modules
    files: list[list[Any]]  # the manifest of these files
    contents: list[Content]  # and what is in them


def prepare(
    computation: Callable[..., Any] | str,
    setup: Callable[..., Any] | None = None,
    cleanup: Callable[..., Any] | None = None,
    depends: Sequence[Any] = (),
) -> Computation:
    """Return a computation ready to be sent; raises DispyError for what cannot be one.

    `depends`: functions, classes, instances and modules; files are passed over.
    """
    code, named = sort_code(depends)
    parts = {**code, "setup": setup, "cleanup": cleanup}
    settings = {
        "program": isinstance(computation, str),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "implementation": sys.implementation.name,
    }
    if isinstance(computation, str):
        content, program = _read_program(computation)
        bundle, imported = make_bundle(computation, parts, content)
        return _whole(computation, settings | program, bundle, imported, named)
    if not callable(computation):
        raise DispyError(
            f"invalid computation type: a function or the path of a program, not {computation!r}"
        )
    name = getattr(computation, "__name__", type(computation).__name__)
    if _is_generator(computation):
        raise DispyError(
            f"{name} is a generator function: what it returns cannot leave the node. Return a "
            f"list of the values, or send each with dispy_provisional_result"
        )
    bundle, imported = make_bundle(name, {**parts, "computation": computation})
    return _whole(name, settings, bundle, imported, named)


def _whole(
    name: str,
    settings: dict[str, Any],
    bundle: Bundle,
    imported: set[str],
    named: Sequence[ModuleType],
) -> Computation:
    """Return a computation with the files of its modules."""
    files = module_files(imported, named)
    if not files:
        packed = bundle.packed()
        return Computation(name, settings, packed, settings["program"], frozenset(), [], [])
    directory, entries, contents = module_manifest(files)
    places = [file.place for file in files]
    logger.debug("modules that are sent along with %s: %s", name, ", ".join(places))
    return Computation(
        name, settings, replace(bundle, modules=directory).packed(), settings["program"],
        frozenset(places), entries, contents,
    )  # fmt: skip


def pack_for_job(name: str, depends: Sequence[Any], besides: frozenset[str]) -> bytes | None:
    """Return the code that one job of a computation depends on, None if there is none.

    `besides`: places of modules that the computation has. Raises DispyError for what cannot be
    sent.
    """
    code, named = sort_code(depends, "dispy_job_depends")
    if not named and not any(code.values()):
        return None
    bundle, imported = make_bundle(f"dispy_job_depends of {name}", code)
    sources = {}
    for place, path in module_files(imported, named, besides):
        if not place.endswith(".py"):
            raise DispyError(
                f"dispy_job_depends: {path!r} is no Python source, and only that is sent for a "
                f"single job; name the module in the cluster's depends"
            )
        with open(path, "rb") as file:
            sources[place] = file.read()
    return replace(bundle, sources=sources).packed()


def _read_program(given: str) -> tuple[bytes, dict[str, Any]]:
    """Return a program's file, and what else a node has to know of it."""
    import shutil  # 3 ms that functions need not wait for

    path = given if os.path.isfile(given) else shutil.which(given)
    if path is None:
        raise DispyError(f"no program {given!r}: neither a file here nor in PATH")
    if not path.endswith(_RUN_BY_OTHERS) and not os.access(path, os.X_OK):
        raise DispyError(f"the program {path!r} is not executable: chmod +x {path}")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DispyError(f"cannot read the program {path!r}: {error.strerror}") from None
    return content, {"file": os.path.basename(path), "java": overrides.Java}


def _is_generator(computation: Callable[..., Any]) -> bool:
    import inspect  # 4 ms; packing needs it anyway

    return inspect.isgeneratorfunction(computation) or inspect.isasyncgenfunction(computation)
