"""Whose clusters these are, and who an operator is, as a shared scheduler shows it."""

import getpass
import os
import socket


def owner_here() -> str:
    """Return who this process works for, as schedulers show it: "ann@host"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user that the system does not know, as in containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"
