"""Which modules are the user's own, and which of them some code imports.

A node has the standard library and what is installed there. A module of the user's own, which
lies anywhere else on the path of this program (an editable install does), is not there: it is
shipped as a file, in the layout of its package, and imported on the node as it is at home.

What is imported is read from compiled code, of a module or of a single function; nothing is
run and no source is parsed. Imported late: only who makes a cluster needs it.
"""

import dis
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from dispy.model.errors import DispyError

logger = logging.getLogger("dispy.client")

_SELF = __name__.partition(".")[0]  # nodes have their own
_INSTALLED_NAMES = frozenset({"site-packages", "dist-packages"})
_SKIPPED = ("__pycache__", ".")  # of a package that is sent whole: how names of these begin
_STAR_OF = "__all__"


class ModuleFile(NamedTuple):
    """A file of a module: where it lies here, and where below the node's directory of modules."""

    place: str
    path: str


def is_own(module: ModuleType) -> bool:
    """Say whether a module is the user's own, so that a node lacks it."""
    spec = getattr(module, "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return is_own_spec(spec)
    # Without a spec it was made by the program itself; no node can import that.
    return module.__name__ not in sys.builtin_module_names and module.__name__ != "__main__"


def has_file(module: ModuleType) -> bool:
    """Say whether a module can be shipped as a file."""
    spec = getattr(module, "__spec__", None)
    return isinstance(spec, ModuleSpec) and (
        _file_of(spec) is not None or spec.submodule_search_locations is not None
    )


def is_own_spec(spec: ModuleSpec) -> bool:
    """Say the same of where a module would be imported from."""
    top = spec.name.partition(".")[0]
    if top == _SELF or spec.origin in ("built-in", "frozen"):
        return False
    if spec.origin is not None:
        return not _is_installed(os.path.dirname(spec.origin))
    places = spec.submodule_search_locations  # of a package without an __init__.py
    return bool(places) and not all(_is_installed(place) for place in places or ())


def _file_of(spec: ModuleSpec) -> str | None:
    return spec.origin if spec.has_location and os.path.isfile(spec.origin or "") else None


@functools.cache
def _library_places() -> tuple[str, ...]:
    # `sysconfig` would say the same, and read all that Python was built with: 4 ms.
    places = os.path.dirname(os.__file__), getattr(sys, "_MEIPASS", None)
    return tuple(os.path.join(os.path.realpath(place), "") for place in places if place)


@functools.lru_cache(maxsize=10_000)
def _is_installed(directory: str) -> bool:
    """Say whether what lies in a directory is the standard library's or was installed."""
    real = os.path.join(os.path.realpath(directory), "")
    return real.startswith(_library_places()) or not _INSTALLED_NAMES.isdisjoint(real.split(os.sep))


# -- what is imported


def imports_in(code: CodeType, package: str) -> Iterator[str]:
    """Yield the full names of all that code imports, also in functions within it.

    `package` is the one that relative imports are relative to. Of `from a import b` both `a`
    and `a.b` are named, because `b` may be a module.
    """
    if any(op == _IMPORT_NAME for op in code.co_code[::2]):  # most functions import nothing
        yield from _imports_in_one(code, package)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from imports_in(constant, package)


_IMPORT_NAME = dis.opmap["IMPORT_NAME"]


def _imports_in_one(code: CodeType, package: str) -> Iterator[str]:
    constants: list[Any] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith("LOAD_"):
            constants = [*constants[-1:], instruction.argval]
        elif instruction.opname == "IMPORT_NAME":
            level, names = constants
            base = _absolute(instruction.argval, level, package)
            if base:
                yield base
                yield from (f"{base}.{name}" for name in names or () if name != "*")
                if names and "*" in names:
                    listed = getattr(sys.modules.get(base), _STAR_OF, ())
                    yield from (f"{base}.{name}" for name in listed)


def _absolute(name: str, level: int, package: str) -> str | None:
    if not level:
        return name
    try:
        return importlib.util.resolve_name("." * level + name, package)
    except ImportError:  # more dots than packages: it would fail at home too
        return None


# -- the modules of a computation


def own_modules(names: Iterable[str]) -> list[ModuleFile]:
    """Return the files of the user's own modules among these names, and of all that they import."""
    found: dict[str, ModuleSpec] = {}
    wanted = [*names]
    while wanted:
        name = wanted.pop()
        if name in found or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        spec = find_module(name)
        if spec is None or not is_own_spec(spec):
            continue
        found[name] = spec
        wanted += _imports_of(spec)
        parent = name.rpartition(".")[0]
        if parent:
            wanted.append(parent)
        if spec.submodule_search_locations is not None:  # what it imports by name, at run time
            wanted += [loaded for loaded in tuple(sys.modules) if loaded.startswith(name + ".")]
    files = []
    for name, spec in sorted(found.items()):
        path = _file_of(spec)
        if path is not None:
            files.append(ModuleFile(_place(name, spec, path), path))
    return files


def find_module(name: str) -> ModuleSpec | None:
    """Return where a module is, or would be, imported from; not even its package is imported."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return spec
    parent = name.rpartition(".")[0]
    places = None
    if parent:
        package = find_module(parent)
        if package is None or package.submodule_search_locations is None:
            return None
        places = list(package.submodule_search_locations)
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, places)
        except Exception:  # foreign code: an import hook
            continue
        if spec is not None:
            return spec
    return None


_known_imports: dict[tuple[str, int, int], tuple[str, ...]] = {}


def _imports_of(spec: ModuleSpec) -> tuple[str, ...]:
    path = _file_of(spec)
    if path is None:
        return ()
    status = os.stat(path)
    key = path, status.st_mtime_ns, status.st_size
    if key not in _known_imports:
        try:
            code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
        except (AttributeError, ImportError, SyntaxError):  # an extension module, say
            code = None
        names = imports_in(code, spec.parent or "") if code is not None else ()
        _known_imports[key] = tuple(dict.fromkeys(names))
    return _known_imports[key]


def _place(name: str, spec: ModuleSpec, path: str) -> str:
    """Return where the file goes: "shapes/round.py" for shapes.round."""
    stem = name.replace(".", "/")
    last = name.rpartition(".")[2]
    if spec.submodule_search_locations is not None:
        stem, last = f"{stem}/__init__", "__init__"
    return stem + os.path.basename(path)[len(last) :]


# -- a module that the user names


def files_of(module: ModuleType) -> list[ModuleFile]:
    """Return all files of a module that a program wants shipped: of a package, with its data.

    What belongs to Python itself is left out. Raises DispyError for one that has no files.
    """
    name, spec = module.__name__, getattr(module, "__spec__", None)
    if name.partition(".")[0] in sys.stdlib_module_names:
        return []
    if not isinstance(spec, ModuleSpec) or not has_file(module):
        raise DispyError(
            f"depends: module {name!r} has no file that could be sent; nodes cannot import it"
        )
    files = {file.place: file for file in own_modules([name])}
    parents = name.split(".")[:-1]
    for at in range(len(parents)):
        above = find_module(".".join(parents[: at + 1]))
        path = _file_of(above) if above is not None else None
        if above is not None and path is not None:
            place = _place(above.name, above, path)
            files[place] = ModuleFile(place, path)
    if spec.submodule_search_locations is None:
        path = spec.origin or ""
        place = _place(name, spec, path)
        files[place] = ModuleFile(place, path)
    for directory in spec.submodule_search_locations or ():
        files.update({file.place: file for file in _all_below(directory, name.replace(".", "/"))})
    return list(files.values())


def _all_below(directory: str, place: str) -> Iterator[ModuleFile]:
    for where, inner, names in os.walk(directory):
        inner[:] = sorted(name for name in inner if not name.startswith(_SKIPPED))
        below = os.path.relpath(where, directory)
        start = place if below == "." else f"{place}/{below.replace(os.sep, '/')}"
        for name in sorted(names):
            path = os.path.join(where, name)
            if not name.startswith(_SKIPPED) and os.path.isfile(path):
                yield ModuleFile(f"{start}/{name}", path)
