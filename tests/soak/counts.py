"""What a process keeps: memory, descriptors, threads, greenlets, and the rows of dispy's tables.

Every container that hangs at an object of dispy's own is a table: its rows are counted under the
names of class and attribute, so nothing has to be listed here to be watched.
"""

import ctypes
import gc
import os
import sys
import threading
from collections import Counter, deque
from typing import Any

TABLES = dict, set, list, deque, frozenset, bytearray


def count_all() -> dict[str, int]:
    """Return the figures of this process; call it in the thread whose greenlets count too."""
    for _ in range(3):
        gc.collect()
    _return_memory()
    figures = {
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "threads": threading.active_count(),
        "kernel threads": len(os.listdir("/proc/self/task")),
        "objects": len(gc.get_objects()),
        **_memory(),
    }
    rows: Counter[str] = Counter()
    for each in gc.get_objects():
        kind, module = type(each), str(type(each).__module__)
        if module.startswith("dispy."):
            rows[f"{kind.__name__} objects"] += 1
            _count_rows(each, kind.__name__, rows)
        elif kind.__name__ == "_Frame":
            continue  # of the stack on which a greenlet was spawned: as deep as that was
        elif module.startswith("gevent") or kind.__name__ == "greenlet":
            rows[f"{kind.__name__} objects"] += 1
    for name, module in list(sys.modules.items()):
        if name.startswith("dispy."):
            _count_rows(module, name, rows)
    figures.update({f"rows: {name}": number for name, number in rows.items()})
    return figures


def _count_rows(each: Any, name: str, rows: "Counter[str]") -> None:
    slots = [slot for kind in type(each).__mro__ for slot in getattr(kind, "__slots__", ())]
    attributes = {slot: getattr(each, slot, None) for slot in slots if slot != "__weakref__"}
    attributes.update(getattr(each, "__dict__", {}))
    for attribute, value in attributes.items():
        if type(value) in TABLES or isinstance(value, dict):
            rows[f"{name}.{attribute}"] += len(value)


def _memory() -> dict[str, int]:
    """Return KiB."""
    with open("/proc/self/smaps_rollup") as file:
        lines = [line.split() for line in file]
    wanted = {"Rss:": "KiB resident", "Pss:": "KiB proportional", "Private_Dirty:": "KiB private"}
    return {wanted[words[0]]: int(words[1]) for words in lines if words[0] in wanted}


def _return_memory() -> None:
    """Have the C library give back what it keeps of freed memory."""
    ctypes.CDLL(None).malloc_trim(0)
