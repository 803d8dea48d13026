"""Output of jobs comes to the program's own streams while they run, and is whole in the end."""

import re

from dispy.client.streaming import BYTES_A_SECOND

PROGRAM = """
import os, sys, time
import dispy

def talk(gate):
    print("begun")
    sys.stderr.write("trouble\\n")
    os.system("echo of a child")
    print("\\x1b[31mred\\x1b[0m \\x07bell", end="")
    while not os.path.exists(gate):
        time.sleep(0.01)
    print("\\nfree", flush=True)
    print("unfinished", end="")

if __name__ == "__main__":
    with dispy.JobCluster(talk, stream=True) as cluster:
        job = cluster.submit(sys.argv[1])
        job.id = "first"
    print("whole:", repr(job.stdout), repr(job.stderr), job.exception)
"""


def test_lines_come_while_their_job_runs_led_by_job_and_node(run_program, tmp_path) -> None:
    gate = tmp_path / "gate"
    program = run_program(PROGRAM, str(gate))
    seen = ""
    while "of a child" not in seen or "trouble" not in seen:
        line = program.line()
        assert line, program.output
        seen += line
    assert re.search(r"^\[job first on [^]]+\] begun$", seen, re.MULTILINE), seen
    gate.touch()  # only now can the job end
    assert program.end() == 0, program.output
    assert re.search(r"\] red \N{REPLACEMENT CHARACTER}bell$", program.output, re.MULTILINE)
    assert re.search(r"\] free\n\[.*\] unfinished\nwhole: ", program.output)
    assert r"whole: 'begun\nof a child\n\x1b[31mred" in program.output
    assert program.output.count("begun") == 2, "each line is shown once, and is in job.stdout"


FLOOD = """
import dispy

def flood(size):
    for _ in range(size // 100):
        print("x" * 99)

if __name__ == "__main__":
    with dispy.JobCluster(flood, stream=True) as cluster:
        job = cluster.submit(900_000)
    assert len(job.stdout) == 900_000
"""


def test_a_flood_is_cut_and_what_is_left_out_is_counted(run_program) -> None:
    program = run_program(FLOOD)
    assert program.end() == 0, program.output
    assert len(program.output) < 2 * BYTES_A_SECOND, "of 900,000 bytes"
    assert "bytes are not shown here; the job's output has them" in program.output


def test_output_is_not_shown_where_nobody_asked_for_it(run_program) -> None:
    program = run_program(
        "import dispy\n"
        "def f(): print('not here')\n"
        "with dispy.JobCluster(f) as cluster: job = cluster.submit()\n"
        "assert job.stdout == 'not here\\n'\n"
    )
    assert program.end() == 0, program.output
    assert "not here" not in program.output
