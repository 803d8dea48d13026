"""A computation's code to bytes: by value where the other side cannot import it.

cloudpickle takes functions of `__main__` by value and others by reference. A function of the
user's own module would then be looked for on the node, which has not got that file; so such
modules are taken by value too. Modules of the standard library and installed packages are not.
"""

import io
import sys
import sysconfig
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from dispy.shipping.payloads import CannotPack, by_value_lock

_INSTALLED = [
    Path(place).resolve()
    for place in {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    if place
]


def pack_code(parts: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes from which a worker rebuilds `parts` of the computation `name`.

    Raises CannotPack.
    """
    import cloudpickle  # 16 ms, which `import dispy` must not cost

    found = [sys.modules.get(getattr(part, "__module__", None) or "") for part in parts.values()]
    by_value = {module for module in found if module is not None and not _is_installed(module)}
    with by_value_lock:
        try:
            for module in by_value:
                cloudpickle.register_pickle_by_value(module)
            packed = _dump(parts, cloudpickle.Pickler)
        except Exception as error:  # foreign code: any object that the function refers to
            raise CannotPack(
                f"{name} cannot be sent to a node: {error}. It refers to something that lives "
                f"in this process only; create that inside {name} instead."
            ) from error
        finally:
            for module in by_value:
                if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.unregister_pickle_by_value(module)
    return packed


def _dump(parts: Mapping[str, Any], pickler: type) -> bytes:
    """Pickle functions with the names of its source files, which tracebacks shall show.

    cloudpickle 3.1.3 replaces them, so that equal code gives equal bytes wherever it stands.
    """
    reduce_code = pickler.dispatch_table[CodeType]  # type: ignore[attr-defined]

    def reduce_with_file(code: CodeType) -> tuple[Any, ...]:
        rebuild, fields = reduce_code(code)
        return rebuild, tuple(
            code.co_filename if field == "<dynamic-code>" else field for field in fields
        )

    table = ChainMap({CodeType: reduce_with_file}, pickler.dispatch_table)  # type: ignore[attr-defined]
    with_files = type("PicklerWithFiles", (pickler,), {"dispatch_table": table})
    file = io.BytesIO()
    with_files(file, protocol=5).dump(parts)
    return file.getvalue()


def _is_installed(module: ModuleType) -> bool:
    """Say whether another machine with the same packages would have this module."""
    if module.__name__ == "__main__":
        return True  # cloudpickle takes it by value without being told
    file = getattr(module, "__file__", None)
    if file is None:
        return True  # built in
    path = Path(file).resolve()
    return any(place in path.parents for place in _INSTALLED)
