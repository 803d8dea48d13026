"""Texts of others, as they may go into logs and onto terminals."""

import re

TEXT_LIMIT = 64 * 1024  # letters of a reason that are kept
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48's control sequences


def legible(text: str, kept: str = "\n\t") -> str:
    """Return a text of at most TEXT_LIMIT letters that cannot steer a terminal.

    Colours are left out. kept: letters that do not print, and stay all the same.
    """
    text = text[:TEXT_LIMIT]
    if text.isprintable():
        return text
    text = _ESCAPES.sub("", text)
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """Return a sentence of somebody else's as one line, which so looks like no other line."""
    return " ".join(legible(text[:1000]).split())
