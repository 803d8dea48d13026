"""What other users see of this process's command line (`ps`), and how to take a secret out of it.

The text that the kernel shows is the process's own memory. Linux says where that lies in
/proc/PID/stat; `Py_GetArgcArgv` does not, its texts are copies.
"""

import os
import sys
from collections.abc import Sequence

from dispy.system.interpreter import is_frozen

_START, _END = 48 - 3, 49 - 3  # arg_start and arg_end in stat(5), after the name in brackets
# Options that take a secret, and how many letters of them are enough to be meant.
_LONG = {"--secret": 3, "--cluster_secret": 11, "--node_secret": 8}
_FLAGS = "cdhq"  # of one letter, that may stand before -s in one word and take no value


def secret_places(arguments: Sequence[str | bytes]) -> list[tuple[int, int]]:
    """Return (number of the argument, first letter) of each secret of a command line.

    All spellings of the options, `-s` too, as docopt understands them.
    """
    found = []
    follows = False
    for number, argument in enumerate(arguments):
        word = argument.decode(errors="replace") if isinstance(argument, bytes) else argument
        if follows:
            found.append((number, 0))
            follows = False
            continue
        name, equals, _ = word.partition("=")
        if any(len(name) >= least and long.startswith(name) for long, least in _LONG.items()):
            if equals:
                found.append((number, len(name) + 1))
            follows = not equals
        elif word.startswith("-") and not word.startswith("--"):
            letters = word[1:].lstrip(_FLAGS)
            if letters.startswith("s"):
                at = len(word) - len(letters) + 1
                if at < len(word):
                    found.append((number, at))
                follows = at == len(word)
    return found


def hide_secrets(arguments: Sequence[str]) -> bool:
    """Overwrite the secrets of this process's command line, which ends with these arguments.

    In the single executable its outer process has the same command line, which is overwritten
    where the kernel lets us. Returns whether nobody sees a secret any more.
    """
    pids = [os.getpid(), os.getppid()] if is_frozen() else [os.getpid()]
    return sys.platform == "linux" and all([_hide(pid, len(arguments)) for pid in pids])


def _hide(pid: int, count: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[_START]), int(fields[_END])
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            words = memory.read(end - start).split(b"\0")[:-1]
            ours = len(words) - count  # before them the interpreter's own, which has a -s too
            for number, first in secret_places(words[ours:]):
                word = words[ours + number]
                offset = sum(len(before) + 1 for before in words[: ours + number])
                memory.seek(start + offset + first)
                memory.write(b"*" * (len(word) - first))
    except (OSError, ValueError, IndexError):
        return False
    return True
