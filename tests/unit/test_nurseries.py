"""A node that has no descriptors left for one more process goes on, and tries again."""

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


def test_without_descriptors_there_is_an_error_and_the_node_goes_on(no_descriptors: None) -> None:
    nurseries = Nurseries(Confinement())
    with pytest.raises(OSError, match="Too many open files"):
        nurseries.take(Path("/"))
    nurseries.stop()
