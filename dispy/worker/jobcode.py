"""Code that came with a single job (`dispy_job_depends`): there while it runs, gone after it.

It is loaded as the job's arguments are rebuilt, which may need it, in the process that runs the
job. Modules are imported from memory, so that nothing has to be removed from disk where that
process ends without a word.
"""

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from dispy.shipping.bundle import read_bundle
from dispy.worker import inside
from dispy.worker.isolation import on_clean
from dispy.worker.loading import provide


class JobCode:
    """Loads the code of one job after the other beside that of a computation."""

    def __init__(self, names: dict[str, Any] | None) -> None:
        """`names`: the globals of the computation."""
        self._tables = [vars(sys.modules["__main__"])]
        if names is not None and names is not self._tables[0]:
            self._tables.append(names)
        self._before: list[dict[str, Any]] = []
        self._modules: _Memory | None = None

    def load(self, packed: bytes) -> None:
        """Make the code usable until the job has been cleaned up after; raises what it raises."""
        on_clean(self._forget)
        self._before = [dict(table) for table in self._tables]
        bundle = read_bundle(packed)
        self._modules = _Memory(bundle.sources)
        # Before all others: a module of the job's hides one of the computation's.
        sys.meta_path.insert(0, self._modules)
        parts = bundle.parts()
        for table, before in zip(self._tables, self._before, strict=True):
            # Globals that a function brought are those of the client; what setup made of them
            # stays.
            table.update(before)
            table.update({**parts.get("classes", {}), **parts.get("depends", {})})
        provide(inside.NAMES, parts)

    def _forget(self) -> None:
        if self._modules is not None:
            sys.meta_path.remove(self._modules)
            self._modules.forget()
            self._modules = None
        for table, before in zip(self._tables, self._before, strict=True):
            table.clear()
            table.update(before)


class _Memory:
    """Finds and loads modules whose source is in memory."""

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        """`sources`: by their place in a directory, "shapes/round.py" for shapes.round."""
        self._sources: dict[str, tuple[str, bytes]] = {}
        self._packages: set[str] = set()
        self._hidden = dict(sys.modules)
        for place, source in sources.items():
            stem, _, _ = place.rpartition(".py")
            name = stem.removesuffix("/__init__").replace("/", ".")
            if stem.endswith("/__init__"):
                self._packages.add(name)
            self._sources[name] = place, source
            # One that the computation has of the same name stays hidden as long as this is here.
            sys.modules.pop(name, None)

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that came, None for another."""
        if name not in self._sources:
            return None
        origin = self._sources[name][0]
        return ModuleSpec(name, self, origin=origin, is_package=name in self._packages)  # type: ignore[arg-type]  # has all that a loader needs

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of a module."""
        place, source = self._sources[module.__name__]
        module.__file__ = place
        exec(compile(source, place, "exec"), vars(module))

    def get_source(self, name: str) -> str:
        """Return the text, for tracebacks."""
        return self._sources[name][1].decode()

    def forget(self) -> None:
        """Take out of `sys.modules` what came from here, and put back what it hid."""
        for name in self._sources:
            sys.modules.pop(name, None)
            if name in self._hidden:
                sys.modules[name] = self._hidden[name]
