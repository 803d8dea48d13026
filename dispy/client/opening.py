"""What nodes get when a cluster opens: its computation, its files, and a table of settings."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dispy.client.computation import prepare
from dispy.client.files import Files, check_dest_path, take_files
from dispy.client.isolation import ClusterIsolation
from dispy.client.limits import limits_of_cluster
from dispy.client.preparing import check_functions


class Opening(NamedTuple):
    """A cluster as its nodes get it, and what the cluster must know of that itself."""

    name: str  # of its computation
    is_program: bool
    modules: frozenset[str]  # the places of the files of its modules
    has_setup: bool
    cleans_up: bool  # by a function of the user's
    isolation: ClusterIsolation
    files: Files  # that all its jobs need
    settings: dict[str, Any]
    content: bytes  # a packed bundle


def make_opening(
    computation: "Callable[..., Any] | str | Opening",
    elements: list[Any],
    setup: Any,
    cleanup: Any,
    dest_path: Any,
    chosen: Mapping[str, Any],
) -> Opening:
    """Return what a cluster's arguments come to; raises DispyError for what cannot be used.

    `elements`: of `depends`. `chosen`: its settings, by name. An Opening is what it came to before.
    """
    if isinstance(computation, Opening):
        return computation
    setup, last = check_functions(setup, cleanup)
    prepared = prepare(computation, setup, last, elements)
    taken = take_files(elements)
    files = Files(taken.entries + prepared.files, taken.contents + prepared.contents)
    isolation = ClusterIsolation(prepared.name, chosen["isolation"], setup is not None)
    settings = prepared.settings | {
        "setup": setup is not None, "cleans_up": last is not None,
        "setup_timeout": chosen["setup_timeout"],
        "files": files.entries, "dest_path": check_dest_path(dest_path), "cleanup": bool(cleanup),
        "stream": chosen["stream"], "cpus": chosen["cpus"], "isolation": isolation.word,
        "max_result_size": chosen["max_result_size"], "limits": limits_of_cluster(chosen),
    }  # fmt: skip
    return Opening(
        prepared.name, prepared.is_program, prepared.modules, setup is not None, last is not None,
        isolation, files, settings, prepared.content,
    )  # fmt: skip
