"""A scheduler that is to begin anew, whatever an earlier one was given (`--clean`)."""

import os
import shutil
from pathlib import Path

from dispy.model.errors import DispyError
from dispy.scheduler.drained import NAME as DRAINED
from dispy.scheduler.identity import NAME as IDENTITY
from dispy.shipping.store import let_list
from dispy.system.directories import open_private
from dispy.system.locking import try_lock

LOCK = "lock"  # of the journal
JOURNAL = "journal.sqlite"  # how names begin of what holds it, damaged ones put aside too
OTHERS = ("beside", "contents", DRAINED)


def clean(directory: str) -> None:
    """Remove what a data directory holds of clients, jobs and results.

    Who the scheduler is stays: nodes that have jobs of the earlier one are told to drop them.
    Raises DispyError where a scheduler uses the directory, or it cannot be emptied.
    """
    if not os.path.exists(os.path.join(directory, IDENTITY)):
        return  # it is not there, or no scheduler's
    try:
        lock = open_private(os.path.join(directory, LOCK))
        try:
            if not try_lock(lock):
                raise DispyError(f"--clean: another scheduler uses {directory}; end it first")
            let_list(Path(directory, "contents", "store"))
            for entry in list(os.scandir(directory)):
                if not (entry.name.startswith(JOURNAL) or entry.name in OTHERS):
                    continue  # it may be a directory with other things
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        finally:
            os.close(lock)
    except OSError as error:
        raise DispyError(f"--clean: {directory}: {error.strerror or error}") from None
