"""Names that a computation's code uses and nobody has defined.

Functions written for dispy 4 use `time`, `os` and others without importing them, because they
ran where these had been imported. A name is provided only where the code mentions it, so that
others cost nothing.
"""

import contextlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

_MODULES = {
    "argparse", "copy", "dispy", "errno", "glob", "hashlib", "io", "marshal", "multiprocessing",
    "os", "pickle", "platform", "psutil", "re", "shutil", "signal", "socket", "stat", "struct",
    "subprocess", "sys", "tempfile", "threading", "time", "traceback",
}  # fmt: skip


def mentioned_modules(names: dict[str, Any], functions: Sequence[Any]) -> dict[str, Any]:
    """Return the modules that functions with these globals mention and do not find in them.

    `functions` are those that need not be among the globals themselves.
    """
    mentioned: set[str] = set()
    for value in (*functions, *names.values()):
        for function in [value, *(vars(value).values() if isinstance(value, type) else ())]:
            if isinstance(function, FunctionType) and function.__globals__ is names:
                mentioned.update(_mentioned(function.__code__))
    found = {}
    for name in (mentioned & _MODULES) - names.keys():
        with contextlib.suppress(ImportError):  # psutil need not be there
            found[name] = import_module(name)
    return found


def _mentioned(code: CodeType) -> Iterator[str]:
    """Yield all names in a function's code and in what is nested in it; attributes too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _mentioned(constant)
