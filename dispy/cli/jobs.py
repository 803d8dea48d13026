"""The functions that `dispy demo` and `dispy bench` run on nodes.

In a module of their own with few imports: workers import it. They return plain values, which
need no class of ours to be rebuilt.
"""

import re
import time
from collections import Counter
from typing import TypeVar

Value = TypeVar("Value")
_WORD = re.compile(r"\w+")
DIGEST_BYTES = 32


def digest_and_count(content: bytes) -> tuple[int, int, int, int, str, str]:
    """Return bytes, lines, words, different words, the most frequent word, BLAKE2b digest.

    Words are what has letters and digits, in whatever case; bytes that are no UTF-8 are none.
    """
    from hashlib import blake2b

    text = content.decode("utf-8", "replace").casefold()
    words = Counter(_WORD.findall(text))
    most = max(words, key=words.__getitem__, default="")
    digest = blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
    return len(content), len(content.splitlines()), words.total(), len(words), most, digest


def give_back(value: Value) -> Value:
    """Return the argument: a job that does nothing else."""
    return value


def sleep(seconds: float) -> None:
    """Take a known time, and no processor."""
    time.sleep(seconds)
