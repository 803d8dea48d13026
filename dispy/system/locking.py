"""A lock on an open file, which ends with its holder, whatever ends that."""

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # no POSIX system: nobody is kept out there
    CAN_LOCK = False
else:
    CAN_LOCK = True


def try_lock(descriptor: int) -> bool:
    """Lock a file; False where somebody else has locked it. Raises OSError.

    The lock belongs to the open file: a forked child has it too, until it closes its copy of the
    descriptor.
    """
    if not CAN_LOCK:
        return True
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True
