"""The same tests once more, with `SharedJobCluster` for `JobCluster`: `pytest --shared=all`.

A `SharedJobCluster` promises the behaviour of a `JobCluster`, so these tests of the one are tests
of the other, unchanged: the name `dispy.JobCluster` means the other class, and each module has
a scheduler, which finds the nodes that its tests start, and a node of two processors in place of
the local one. `--shared=most` leaves out what takes long and shows little that the rest does not.
"""

import atexit
import itertools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dispy

MODULES = {
    "callbacks", "cancel", "canonical_program", "cluster_arguments", "cluster_nodes", "deaths",
    "depends", "dispy4_programs", "distribution", "embedding", "files", "isolation", "jobs",
    "jobs_as_seen", "large_data", "large_kinds", "limits", "map", "names_in_jobs", "node_control",
    "other_pythons", "overrides", "placement", "processors", "programs", "resetup", "retries",
    "send_file_from_job", "send_file_over_links", "setup", "shared_arguments", "streaming",
    "trouble",
}  # fmt: skip

# Tests that cannot apply, by the reason.
NOT_SHARED: dict[str, tuple[str, ...]] = {
    "it is about the program's own node": (
        "canonical_program::without_a_node_a_local_one_starts_and_says_so_in_one_line",
        "embedding::a_notebook_runs_what_its_cells_define",
        "embedding::a_child_that_lives_on_does_not_keep_the_parents_local_node",
        "embedding::two_threads_may_open_the_first_clusters",
        "dispy4_programs::a_program_that_only_submits_waits_for_its_jobs_at_its_end",
        "dispy4_programs::a_program_for_dispy_4_runs_as_it_stands[variants]",
        "limits::a_node_short_of_memory_starts_no_job_says_so_and_goes_on",
    ),
    "it counts on there being one node, and the scheduler has two": (
        "canonical_program::with_a_node_on_the_machine_that_one_is_used",
    ),
    "the port is that of nodes, and a scheduler has its own": (
        "cluster_nodes::the_port_of_nodes_is_one_above_the_base_port_of_later_dispy",
    ),
    "it looks into the embedded scheduler": (
        "cluster_nodes::a_cluster_that_is_opened_while_a_link_is_broken_gets_the_node_too",
        "shared_arguments::what_was_put_is_sent_once_whatever_the_number_of_jobs",
        "files::a_content_goes_once_to_a_node_whatever_the_clusters_and_jobs",
        "files::what_is_kept_is_found_again_even_by_another_node_process",
    ),
    "the node says it, in other words, as the program does not know where a job will run": (
        "other_pythons::an_argument_without_source_ends_the_job_with_its_name_and_both_versions",
    ),
    "its program is not the test's to change": (
        "other_pythons::every_kind_of_code_runs_on_every_python",
    ),
    "it names a node that the scheduler does not look for": (
        "send_file_over_links::a_broken_link_does_not_lose_a_file",
    ),
    "a scheduler fetches files at once, not when there is a node": (
        "files::a_file_that_changes_before_it_is_read_is_named",
    ),
}

# What `--shared=most` leaves out, because it takes long or shows little more than the rest does.
LONG = (
    "trouble::",
    "overrides::",
    "large_data::",
    "large_kinds::",
    "distribution::",
    "other_pythons::",
    "shared_arguments::",
    "send_file_over_links::",
    "cancel::force_is_used_on_jobs_that_do_not_listen",
    "programs::a_program_that_ignores_the_interrupt_is_ended_by_sigterm",
    "setup::what_setup_left_is_in_memory_once_for_all_workers",
    "node_control::cluster_status_tells_what_a_node_has_to_spare_at_first_and_again",
    "isolation::one_line_says_when_forking_limits_the_rate_that_nobody_chose",
    "jobs::a_result_of_200_megabytes_comes_back",
)
# Tests of workers, for both kinds of these: one kind is enough.
ISOLATIONS = re.compile(r"(jobs|limits|cancel|isolation)::.*\[job\b")

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
    left_out = test.startswith(LONG) or ISOLATIONS.match(test)
    return "--shared=all runs it" if left_out and which == "most" else None


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
    nodes = ("127.0.0.1", *(f"127.{second}.{third}.*" for second in range(4)))
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
