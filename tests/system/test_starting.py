"""The first result of a program comes soon: what is not needed for it is not waited for."""

PROGRAM = """
import sys

from dispy import JobCluster
from dispy.client import finding

LATE = {"cloudpickle", "dispy.client.computation", "dispy.shipping.files", "dispy.shipping.code"}
NEVER = {
    "OpenSSL", "asyncio", "dispy.shipping.source", "email", "hashlib", "importlib.metadata",
    "json", "psutil", "secrets", "sqlite3", "ssl", "tempfile",
}

def loaded():
    import sys
    return list(sys.modules)

if __name__ == "__main__":
    before = set(sys.modules)
    start_local_node = finding.start_local_node

    def start(session):
        print("imported before the local node:", LATE & sys.modules.keys())
        start_local_node(session)

    finding.start_local_node = start
    with JobCluster(loaded) as cluster:
        in_worker = cluster.submit()()
        print("imported by the client:", (NEVER & sys.modules.keys()) - before)
        print("imported by the worker:", NEVER & set(in_worker))
"""


def test_a_plain_function_has_its_local_node_first_and_never_imports_what_is_rare(
    run_program,
) -> None:
    ran = run_program(PROGRAM)
    assert ran.end() == 0, ran.output
    said = [line for line in ran.output.splitlines() if line.startswith("imported")]
    assert said == [
        "imported before the local node: set()",
        "imported by the client: set()",
        "imported by the worker: set()",
    ]
