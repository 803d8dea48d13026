"""The code among what `depends` and `dispy_job_depends` name.

A function or class is shipped under its name, an instance stands for its class and a
`functools.partial` for its function, as in dispy 4. A module is shipped as files.
"""

import functools
from collections.abc import Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

from dispy.client.depends import is_file
from dispy.model.errors import DispyError

INIT = "init_depends"  # the name of the function that is called before all other code is loaded


def sort_code(
    depends: Sequence[Any], what: str = "depends"
) -> tuple[dict[str, Any], list[ModuleType]]:
    """Return the parts of a bundle that these make, and the modules among them.

    Files are passed over. Raises DispyError for an element that is neither.
    """
    named: dict[str, Any] = {}
    modules: list[ModuleType] = []
    for element in depends:
        if is_file(element):
            continue
        if isinstance(element, ModuleType):
            modules.append(element)
            continue
        code = _code_of(element, what)
        named[code.__name__] = code
    init = named.pop(INIT, None)
    return {"init": init, "depends": named}, modules


def _code_of(element: Any, what: str) -> Any:
    """Return the function or class that an element of depends stands for."""
    while isinstance(element, functools.partial | MethodType):
        element = element.func if isinstance(element, functools.partial) else element.__func__
    if isinstance(element, FunctionType | type):
        return element
    if type(element).__module__ == "builtins":
        raise DispyError(
            f"{what}: {element!r} is neither a file nor code. It may name files, modules, "
            f"functions, classes and instances of these"
        )
    return type(element)
