"""Names that a computation's code uses and nobody has defined.

Functions written for dispy 4 use `time`, `os` and others without importing them, because they
ran where these had been imported. A name is provided only where the code mentions it, so that
others cost nothing.
"""

import contextlib
from collections.abc import Iterator
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

_MODULES = {
    "argparse", "copy", "dispy", "errno", "glob", "hashlib", "io", "marshal", "multiprocessing",
    "os", "pickle", "platform", "psutil", "re", "shutil", "signal", "socket", "stat", "struct",
    "subprocess", "sys", "tempfile", "threading", "time", "traceback",
}  # fmt: skip


def mentioned_modules(function: FunctionType) -> dict[str, Any]:
    """Return the modules that a function, or one that came with it, mentions and has not."""
    names = function.__globals__
    mentioned = set(_mentioned(function.__code__))
    for value in names.values():
        if isinstance(value, FunctionType) and value.__globals__ is names:
            mentioned.update(_mentioned(value.__code__))
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
