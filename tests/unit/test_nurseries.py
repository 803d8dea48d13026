"""A node that has no descriptors left for one more process says so."""

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from dispy.node.confinement import Confinement
from dispy.node.nurseries import Nurseries

resource = pytest.importorskip("resource")


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    gevent.sleep(0)  # its loop has what it needs, or libev would end us
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_who_needs_a_process_is_told_and_the_node_goes_on(no_descriptors: None) -> None:
    nurseries = Nurseries(Confinement())
    with pytest.raises(OSError, match="Too many open files"):
        nurseries.take(Path("/"))
    nurseries.stop()
