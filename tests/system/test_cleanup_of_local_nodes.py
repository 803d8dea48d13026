"""A program's own node cleans up before it ends with its program.

In a module of its own: a node that other tests keep would be found and used instead.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

FAILING = """
import dispy
def compute():
    return 1
def cleanup():
    with open({path!r}, "w") as file:
        file.write("cleaned")
cluster = dispy.JobCluster(compute, cleanup=cleanup)
assert cluster.submit().get() == 1
{end}
"""


@pytest.mark.parametrize("end", ["", "1 / 0", "cluster.close(timeout=0, terminate=True)"])
def test_the_local_node_runs_cleanup_however_its_program_ends(
    run_program: Callable, tmp_path: Path, end: str
) -> None:
    program = run_program(FAILING.format(path=str(tmp_path / "said"), end=end))
    assert program.end() == (1 if end == "1 / 0" else 0), program.output
    assert (tmp_path / "said").read_text() == "cleaned", program.output
