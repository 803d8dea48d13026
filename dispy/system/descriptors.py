"""How many files and connections this process may have open."""

import contextlib
import sys

_MAC_MOST = 10_240  # OPEN_MAX: macOS says that there is no limit, and refuses more


def descriptor_limit() -> int | None:
    """Return how many descriptors a process may have; None: no such limit here."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> int | None:
    """Let this process have as many as it may without a privilege; return that as above."""
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAC_MOST if sys.platform == "darwin" and hard == resource.RLIM_INFINITY else hard
    if soft != wanted:
        with contextlib.suppress(ValueError, OSError):  # as it was, then
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()
