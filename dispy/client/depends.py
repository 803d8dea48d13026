"""What `depends` and `dispy_job_depends` name: files, and code of several kinds.

A function or class is shipped under its name, an instance stands for its class and a
`functools.partial` for its function, as in dispy 4. A module is shipped as files.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from types import FunctionType, MethodType, ModuleType
from typing import Any

from dispy.model.errors import DispyError

INIT = "init_depends"  # the name of the function that is called before all other code is loaded


def is_file(element: Any) -> bool:
    """Say whether an element of depends is the path of a file or directory."""
    return isinstance(element, str | PurePath)


def check_depends(depends: Any, name: str = "depends") -> Sequence[Any]:
    """Return what was given for `depends` as a sequence; raises DispyError for what is none."""
    if depends is None:
        return ()
    if isinstance(depends, str | bytes) or not isinstance(depends, Iterable):
        raise DispyError(f"{name} is a list of files, modules, functions and classes: {depends!r}")
    return list(depends)


def sort_code(depends: Sequence[Any]) -> tuple[dict[str, Any], list[ModuleType]]:
    """Return the parts of a bundle that these make, and the modules among them.

    Raises DispyError for an element that is no code.
    """
    named: dict[str, Any] = {}
    modules: list[ModuleType] = []
    for element in depends:
        if isinstance(element, ModuleType):
            modules.append(element)
            continue
        code = _code_of(element)
        named[code.__name__] = code
    init = named.pop(INIT, None)
    return {"init": init, "depends": named}, modules


def _code_of(element: Any) -> Any:
    """Return the function or class that an element of depends stands for."""
    while isinstance(element, functools.partial | MethodType):
        element = element.func if isinstance(element, functools.partial) else element.__func__
    if isinstance(element, FunctionType | type):
        return element
    if type(element).__module__ == "builtins":
        raise DispyError(
            f"depends: {element!r} is neither a file nor code. It may name files, modules, "
            f"functions, classes and instances of these"
        )
    return type(element)
