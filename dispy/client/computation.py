"""What a cluster's jobs run, made ready to be sent: a function or a program."""

import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from dispy.client.depends import is_file, sort_code
from dispy.model import overrides
from dispy.model.errors import DispyError
from dispy.shipping.bundle import make_bundle

_RUN_BY_OTHERS = (".py", ".java")  # need not be executable themselves


class Computation(NamedTuple):
    """A function or program as the nodes get it."""

    name: str
    settings: dict[str, Any]  # what a node has to know before it loads it
    content: bytes  # a packed bundle
    is_program: bool
    modules: frozenset[str]  # the places of the files that its modules have on a node


def prepare(
    computation: Callable[..., Any] | str,
    setup: Callable[..., Any] | None = None,
    cleanup: Callable[..., Any] | None = None,
    depends: Sequence[Any] = (),
) -> Computation:
    """Return a computation ready to be sent; raises DispyError for what cannot be one.

    `depends`: functions, classes, instances and modules; no files.
    """
    code, modules = sort_code(depends)
    parts = {**code, "setup": setup, "cleanup": cleanup}
    settings = {
        "program": isinstance(computation, str),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "implementation": sys.implementation.name,
    }
    if isinstance(computation, str):
        return _program(computation, settings, parts, modules)
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
    bundle = make_bundle(name, {**parts, "computation": computation}, modules)
    return Computation(name, settings, bundle.packed(), False, frozenset(bundle.modules))


def pack_for_job(name: str, depends: Sequence[Any], besides: frozenset[str]) -> bytes | None:
    """Return the code among what one job of a computation depends on, None if there is none.

    `besides`: as for `make_bundle`. Raises DispyError for what cannot be sent.
    """
    if not depends:
        return None
    code, modules = sort_code([element for element in depends if not is_file(element)])
    bundle = make_bundle(f"dispy_job_depends of {name}", code, modules, besides=besides)
    for place in bundle.modules:
        if not place.endswith(".py"):
            raise DispyError(
                f"dispy_job_depends: {place!r} is no Python source, and only that is sent for a "
                f"single job; name the module in the cluster's depends"
            )
    return bundle.packed()


def _program(
    given: str, settings: dict[str, Any], parts: dict[str, Any], modules: Sequence[ModuleType]
) -> Computation:
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
    settings |= {"file": os.path.basename(path), "java": overrides.Java}
    bundle = make_bundle(given, parts, modules, program=content)
    return Computation(given, settings, bundle.packed(), True, frozenset(bundle.modules))


def _is_generator(computation: Callable[..., Any]) -> bool:
    import inspect  # 4 ms; packing needs it anyway

    return inspect.isgeneratorfunction(computation) or inspect.isasyncgenfunction(computation)
