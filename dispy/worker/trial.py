"""Whether a nursery could work here: asked by a node before it offers anything."""

import os
import sys

from dispy.system.privileges import capabilities


def try_directory(directory: str) -> None:
    """Return if all is well, else end this process with status 1 and a line to standard error.

    Run as the user of the jobs, in the environment that they will have.
    """
    try:
        os.chdir(directory)
    except OSError as error:
        sys.exit(f"{directory}: {error.strerror}")
    # Jobs start it too: as programs, and by `multiprocessing`.
    if not os.access(sys.executable, os.X_OK):
        sys.exit(f"{sys.executable}: not to be run by this user")
    if hasattr(os, "geteuid") and os.geteuid() != 0 and capabilities():
        sys.exit("it keeps rights of root (capabilities)")
