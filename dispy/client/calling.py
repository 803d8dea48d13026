"""Jobs made of calls: what is said of each, and its arguments packed as they cost least to send."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dispy.client.job import DispyJob
from dispy.client.nodes import DispyNode
from dispy.client.options import PREFIX, take_options
from dispy.model.errors import DispyError
from dispy.protocol.messages import Bulk, Payload
from dispy.shipping.payloads import CannotPack, pack_call

if TYPE_CHECKING:
    from dispy.client.files import Files
    from dispy.client.session import Session
    from dispy.shipping.contents import Content

logger = logging.getLogger("dispy.client")


class Calls:
    """Makes the jobs of one cluster; any thread, that of whoever submits.

    `modules`: places of the files of its computation's modules. `nodes`: those that the cluster
    has, as it changes.
    """

    def __init__(
        self,
        session: "Session",
        name: str,
        is_program: bool,
        modules: frozenset[str],
        nodes: Mapping[str, DispyNode],
    ) -> None:
        self._session, self._name, self._is_program = session, name, is_program
        self._modules, self._nodes = modules, nodes
        self.kind: type[DispyJob] = DispyJob  # of its jobs

    def job_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DispyJob | None:
        """Return a call as a job that can be queued; None where it cannot be sent (it is logged).

        Raises DispyError for what is wrong with its options.
        """
        options: dict[str, Any] = {}
        if kwargs and any(name.startswith(PREFIX) for name in kwargs):
            kwargs, options = take_options(kwargs)
        keywords = kwargs
        if self._is_program:
            if kwargs:
                logger.warning("a program takes no keyword arguments: %s", ", ".join(kwargs))
                return None
            args = tuple(map(str, args))
            keywords = {"stdin": options.pop("stdin")} if "stdin" in options else {}
        elif "stdin" in options:
            raise DispyError(f"dispy_job_stdin is for programs, and {self._name} is a function")
        depends = options.pop("depends", ()) if options else ()
        files, code = self._take(depends) if depends else (None, None)
        number, large = next(self._session.numbers), self._session.large
        try:
            if large.in_use:
                payload, needed = large.noting(lambda: pack_call(self._name, args, keywords, code))
                need(self._session, number, options, needed)
            else:
                payload = pack_call(self._name, args, keywords, code)
        except CannotPack as error:
            logger.error("%s", error)
            return None
        if type(payload) is Bulk:
            payload = self._lighten(payload, number, options)
        job = self.kind(args, kwargs, number)
        job._payload = payload
        if options or files:
            self._session.note_options(number, options, files)
        return job

    def _take(self, depends: Sequence[Any]) -> tuple["Files", bytes | None]:
        """Return the files and the code that one job depends on."""
        from dispy.client.computation import pack_for_job  # as when the cluster was opened
        from dispy.client.files import take_files

        files = take_files(depends, f"{PREFIX}depends")
        return files, pack_for_job(self._name, depends, self._modules)

    def _lighten(self, payload: Bulk, number: int, options: dict[str, Any]) -> Payload:
        """Return a call with large arguments as it costs least to send."""
        if self._session.local.node is not None:
            return self._session.memory.share(payload)
        far = any(not node.ip_addr.startswith("127.") for node in list(self._nodes.values()))
        lighter, needed = self._session.large.refer(payload, number, far)
        need(self._session, number, options, needed)
        return lighter


def need(
    session: "Session", number: int, options: dict[str, Any], contents: Sequence["Content"]
) -> None:
    """Have contents ready on a job's node before it starts; `options` says so to the node."""
    if contents:
        session.contents.hold_for(number, contents)
        wanted = [[content.digest, content.size] for content in contents]
        options["needs"] = options.get("needs", []) + wanted
