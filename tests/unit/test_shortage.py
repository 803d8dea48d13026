"""What a machine is out of: how that is told, what is kept, and what the kernel counts."""

import errno
import os
import sys

import pytest

from dispy.system import shortage
from dispy.system.memory_kills import group_of, kills, limit
from dispy.system.shortage import is_shortage, keep_descriptors, tell_shortage


@pytest.mark.parametrize(("most", "last"), [(40, 29), (1024, 959), (None, 10**6)])
def test_some_descriptors_are_kept_for_links_and_files(
    monkeypatch: pytest.MonkeyPatch, most: int | None, last: int
) -> None:
    monkeypatch.setattr(shortage, "descriptor_limit", lambda: most)
    keep_descriptors(last)
    if most is not None:
        with pytest.raises(OSError, match="Too many open files"):
            keep_descriptors(last + 1)


def test_what_passes_is_told_from_what_does_not() -> None:
    full, missing = (OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.ENOENT))
    assert is_shortage(full)
    assert not is_shortage(missing)
    assert tell_shortage(full) == "No space left on device (the disk is full)"
    assert tell_shortage(missing) == "No such file or directory"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")
def test_the_kernel_counts_for_every_process_that_is_there() -> None:
    group = group_of(os.getpid())
    assert group is not None
    assert kills(group) >= 0
    most = limit(group)
    assert most is None or most > 0
    assert group_of(1 << 22) is None, "no process has this number"
