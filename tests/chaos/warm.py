"""A process that has imported what `dispy node` or `dispy scheduler` uses, patched as that is, and
forks nodes or schedulers."""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from chaos import forks  # noqa: E402

USED = {
    "node": ["dispy.cli.node", "gevent.subprocess", "psutil"],
    "scheduler": ["dispy.cli.scheduler", "dispy.net.tls", "sqlite3"],
}
BY_BOTH = [
    "dispy.net.proving", "encodings.idna", "gevent.fileobject", "gevent.resolver.thread",
    "gevent.threadpool", "gevent.util",
]  # fmt: skip


def become(order: dict[str, Any]) -> int:
    """Be the service with these arguments; return its exit status."""
    from dispy.cli import main

    sys.argv[1:] = order["arguments"]
    return main(sys.argv[1:])


if __name__ == "__main__":
    import dispy_all

    dispy_all._patch()
    role = sys.argv[2]
    for name in [*USED[role], *BY_BOTH]:
        importlib.import_module(name)
    package = importlib.import_module(f"dispy.{role}")
    for module in pkgutil.iter_modules(package.__path__, f"dispy.{role}."):
        importlib.import_module(module.name)
    forks.serve(int(sys.argv[1]), become)
