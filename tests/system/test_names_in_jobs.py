"""What jobs find under the names that dispy gives them, with and without importing these."""

import pytest

from dispy import DispyError, job
from dispy.job import dispy_job_path, dispy_node_name, dispy_provisional_result

LOG = """
import sys
import dispy

def log():
    dispynode_logger.info("from a job: %d", 7)

with dispy.JobCluster(log, nodes=[(sys.argv[1], 51348)]) as cluster:
    cluster.submit().get()
"""


def test_the_nodes_logger_writes_to_the_nodes_log(start_node, run_program) -> None:
    node = start_node()
    program = run_program(LOG, node.host)
    assert program.end() == 0, program.output
    node.end()
    assert "dispynode - from a job: 7" in node.said


def look_up() -> list:
    import os

    import dispy.job

    assert dispy.job.dispy_node_ip_addr == dispy_node_ip_addr  # noqa: F821
    assert dispy.job.dispy_provisional_result("early") == 0
    return [dispy_node_name, dispy_job_path, os.getcwd(), dispy_provisional_result("late")]


def test_names_imported_at_a_programs_top_are_those_of_the_job(open_cluster) -> None:
    seen = []
    cluster = open_cluster(look_up, callback=lambda each: seen.append(each.result))
    name, path, directory, answer = cluster.submit().get(timeout=30)
    cluster.wait()
    assert name == cluster.status().nodes[0].name
    assert path == directory
    assert answer == 0
    assert seen[:2] == ["early", "late"]


def test_outside_of_a_job_they_say_so() -> None:
    with pytest.raises(DispyError, match="only inside of a job"):
        job.dispy_provisional_result(1)
    assert "only jobs have" in str(job.dispy_node_name)
    with pytest.raises(ImportError):
        exec("from dispy.job import nonsense")


def test_every_public_name_is_there_for_a_checker_of_types() -> None:
    for name in job.__all__:
        assert getattr(job, name) is not None
