"""Settings reach what they are for: the node, the cluster, the local node."""

import subprocess
from pathlib import Path

from dispy.system.interpreter import own_command

COUNT = """
import dispy
cluster = dispy.JobCluster(abs)
cluster.submit(-1)()
print("processors:", sum(node.cpus for node in cluster.status().nodes))
"""


def test_the_local_node_offers_what_the_configuration_says(run_program, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[node]\ncpus = 1\n[client]\nloglevel = 'error'\n")
    program = run_program(COUNT, DISPY_CONFIG=str(file))
    assert program.end() == 0, program.output
    assert program.output == "processors: 1\n"
    program = run_program(COUNT, DISPY_CONFIG=str(file), DISPY_CPUS="3", DISPY_LOGLEVEL="info")
    assert program.end() == 0, program.output
    assert "processors: 3\n" in program.output
    assert "started a local node" in program.output


def test_a_wrong_setting_ends_a_program_with_the_place_where_it_stands(run_program) -> None:
    program = run_program(COUNT, DISPY_CPUS="many")
    assert program.end() == 1
    assert "DISPY_CPUS: 'many' is not a whole number of processors" in program.output


def test_a_local_node_that_would_offer_nothing_is_refused_at_once(run_program) -> None:
    program = run_program(COUNT, DISPY_CPUS="-4000")
    assert program.end() == 1
    assert "DISPY_CPUS: -4000 would leave nothing to offer" in program.output


def test_a_node_refuses_a_wrong_setting_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[node]\ncpu = 1\n")
    ended = subprocess.run(
        own_command("node"), env={"DISPY_CONFIG": str(file)}, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr == f"dispy: {file}: node.cpu is no setting; did you mean node.cpus?\n"
