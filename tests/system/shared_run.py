"""The same tests once more, with `SharedJobCluster` for `JobCluster`: `pytest --shared=all`.

A `SharedJobCluster` promises the behaviour of a `JobCluster`, so these tests of the one are tests
of the other, unchanged: the name `dispy.JobCluster` means the other class, and each module has
a scheduler, which finds the nodes that its tests start, and a node of two processors in place of
the local one. `--shared=most` leaves out what takes long and shows little that the rest does not.
"""

import atexit
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dispy

MODULES = {
    "callbacks", "cancel", "canonical_program", "cluster_arguments", "cluster_nodes", "deaths",
    "dispy4_programs", "embedding", "isolation", "jobs", "jobs_as_seen", "limits", "map",
    "names_in_jobs", "node_control", "overrides", "placement", "processors", "programs", "resetup",
    "retries", "setup", "streaming", "trouble",
}  # fmt: skip

# Tests that cannot apply, by the reason.
NOT_SHARED: dict[str, tuple[str, ...]] = {
    "it is about the program's own node": (
        "canonical_program::without_a_node_a_local_one_starts_and_says_so_in_one_line",
        "embedding::a_notebook_runs_what_its_cells_define",
        "embedding::a_child_that_lives_on_does_not_keep_the_parents_local_node",
        "embedding::two_threads_may_open_the_first_clusters",
    ),
    "it counts on there being one node, and the scheduler has two": (
        "canonical_program::with_a_node_on_the_machine_that_one_is_used",
    ),
    "it looks into the embedded scheduler": (
        "cluster_nodes::a_cluster_that_is_opened_while_a_link_is_broken_gets_the_node_too",
    ),
    "files do not go through a scheduler so far": (
        "dispy4_programs::a_program_for_dispy_4_runs_as_it_stands[partial_setup]",
        "dispy4_programs::a_program_for_dispy_4_runs_as_it_stands[node_allocate]",
        "dispy4_programs::a_program_for_dispy_4_runs_as_it_stands[scheduler]",
        "dispy4_programs::a_program_for_dispy_4_runs_as_it_stands[sent_files]",
        "dispy4_programs::a_program_for_dispy_4_runs_as_it_stands[variants]",
        "dispy4_programs::a_program_that_only_submits_waits_for_its_jobs_at_its_end",
        "jobs::jobs_have_the_names_that_dispy_4_gave_them",
        "trouble::a_full_disk_fails_what_needs_it_and_nothing_else",
    ),
}

# What `--shared=most` leaves out, because it takes long: modules, tests, or some of their cases.
LONG = (
    "cancel::force_is_used_on_jobs_that_do_not_listen",
    "programs::a_program_that_ignores_the_interrupt_is_ended_by_sigterm",
    "setup::what_setup_left_is_in_memory_once_for_all_workers",
    "node_control::cluster_status_tells_what_a_node_has_to_spare_at_first_and_again",
    "isolation::one_line_says_when_forking_limits_the_rate_that_nobody_chose",
    "jobs::a_result_of_200_megabytes_comes_back",
)

numbers = itertools.cycle(range(2, 250))  # of the nodes that tests start


def is_left_out(path: str) -> bool:
    """Say whether a test module is not for both classes."""
    name = os.path.basename(path)
    return name.startswith("test_") and name[5:-3] not in MODULES


def why_left_out(nodeid: str, which: str) -> str | None:
    """Return why a test is not for both classes: its `nodeid` is as pytest has it."""
    test = nodeid.rpartition("/")[2].replace("test_", "", 1).replace(".py::test_", "::")
    for reason, tests in NOT_SHARED.items():
        if test.startswith(tests):
            return reason
    left_out = which == "most" and test.startswith(LONG)
    return "it takes long; --shared=all runs it" if left_out else None


def share() -> None:
    """Have the name that all programs and tests use mean the other class, in this process."""
    dispy.JobCluster = dispy.SharedJobCluster


def shared_program(source: str) -> str:
    """Return a program that does likewise, with the same lines."""
    first = "import dispy; dispy.JobCluster = dispy.SharedJobCluster"
    return first + source if source.startswith("\n") else f"{first}\n{source}"


@contextmanager
def scheduler_for_a_module(directory: Path) -> Iterator[None]:
    """Give a scheduler that finds each node of this test run; programs know it.

    directory: where it keeps its data.
    """
    from system.schedulers import RunningScheduler

    third = os.getpid() % 250
    nodes = ("127.0.0.1", f"127.0.{third}.*", f"127.1.{third}.*")
    scheduler = RunningScheduler(f"127.2.{third}.1", str(directory), *nodes)
    # Nobody else reads what it says, and it must never wait for that.
    reading = threading.Thread(target=scheduler.read_on, daemon=True)
    reading.start()
    before = os.environ.get("DISPY_SCHEDULER")
    os.environ["DISPY_SCHEDULER"] = scheduler.host
    try:
        yield
    finally:
        end_sessions()
        scheduler.process.terminate()
        status = scheduler.process.wait()
        reading.join()
        if before is None:
            del os.environ["DISPY_SCHEDULER"]
        else:
            os.environ["DISPY_SCHEDULER"] = before
    assert status == 0, scheduler.said
    # Tracebacks of a user's setup are in there too, but they name none of its modules.
    assert "dispy/scheduler/" not in scheduler.said, scheduler.said


def end_sessions() -> None:
    """End what clusters of this process have opened: the next scheduler has the same address."""
    from dispy.client import shared

    for address in list(shared._sessions):
        session = shared._sessions.pop(address)
        session.end()
        atexit.unregister(session._at_exit)
