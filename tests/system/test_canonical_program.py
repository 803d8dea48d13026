"""The program that every user copies first runs as it stands."""

import re

CANONICAL = """
def compute(n):
    import time, socket
    time.sleep(n)
    return (socket.gethostname(), n)

if __name__ == '__main__':
    import dispy, random
    cluster = dispy.JobCluster(compute)
    jobs = []
    for i in range(10):
        job = cluster.submit(random.randint(1, 3))
        job.id = i
        jobs.append(job)
    for job in jobs:
        host, n = job()
        print('%s executed job %s at %s with %s' % (host, job.id, job.start_time, n))
    cluster.stats()
"""
BRIEF = CANONICAL.replace("random.randint(1, 3)", "random.randint(1, 3) / 20")


def check(output: str) -> None:
    executed = re.findall(r"^\S+ executed job (\d) at [\d.]+ with [\d.]+$", output, re.M)
    assert executed == [str(n) for n in range(10)], output
    assert re.search(r"\| +10 \|", output), output


def test_without_a_node_a_local_one_starts_and_says_so_in_one_line(run_program) -> None:
    program = run_program(BRIEF)
    assert program.end() == 0, program.output
    check(program.output)
    assert program.output.count("started a local node") == 1
    assert len(re.findall(r"^20\d\d-", program.output, re.M)) == 1, program.output


def test_with_a_node_on_the_machine_that_one_is_used(run_program, start_node) -> None:
    node = start_node("--name=bench", host="127.0.0.1")
    program = run_program(BRIEF)
    assert program.end() == 0, program.output
    check(program.output)
    assert "local node" not in program.output
    assert "127.0.0.1 (bench)" in program.output
    assert node.end() == 0
