"""A process that has imported what `dispy node` uses, patched as that is, and forks nodes."""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from chaos import forks  # noqa: E402

USED = [
    "dispy.cli.node", "dispy.net.proving", "encodings.idna", "gevent.fileobject",
    "gevent.resolver.thread", "gevent.subprocess", "gevent.threadpool", "gevent.util", "psutil",
]  # fmt: skip


def become(order: dict[str, Any]) -> int:
    """Be the node with these arguments; return its exit status."""
    from dispy.cli import main

    sys.argv[1:] = order["arguments"]
    return main(sys.argv[1:])


if __name__ == "__main__":
    import dispy_all

    dispy_all._patch()
    for name in USED:
        importlib.import_module(name)
    import dispy.node

    for module in pkgutil.iter_modules(dispy.node.__path__, "dispy.node."):
        importlib.import_module(module.name)
    forks.serve(int(sys.argv[1]), become)
