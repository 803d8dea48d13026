"""A computation's code to bytes: by value where the other side cannot import it.

cloudpickle takes functions of `__main__` by value and others by reference. A function of the
user's own module would then be looked for on the node, which has not got that file; so such
modules are taken by value too. Modules of the standard library and installed packages are not.
"""

import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
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

    from dispy.shipping.byvalue import dump

    found = [sys.modules.get(getattr(part, "__module__", None) or "") for part in parts.values()]
    by_value = {module for module in found if module is not None and not _is_installed(module)}
    with by_value_lock:
        try:
            for module in by_value:
                cloudpickle.register_pickle_by_value(module)
            packed = dump(parts)
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


def _is_installed(module: ModuleType) -> bool:
    """Say whether another machine with the same packages would have this module."""
    if module.__name__ == "__main__":
        return True  # cloudpickle takes it by value without being told
    file = getattr(module, "__file__", None)
    if file is None:
        return True  # built in
    path = Path(file).resolve()
    return any(place in path.parents for place in _INSTALLED)
