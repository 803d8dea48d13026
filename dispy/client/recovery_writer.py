"""The recovery file of a living program, as it comes to be; of the thread that writes files."""

import logging
from collections.abc import Sequence

from dispy.client.recovery_file import RecoveryFile
from dispy.client.recovery_form import Content, Entry, Program

logger = logging.getLogger("dispy.client")

SIZE_BYTES = 64 * 1024  # at which a file may be written anew, with what counts alone


class Writer:
    """Makes the file when there is something to write."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.file: RecoveryFile | None = None
        self.path = ""  # where it is
        self._content: Content | None = None
        self._is_whole = True  # False: a line may be torn
        self._has_failed = False

    def write(self, wanted: str, is_named: bool, entries: Sequence[Entry]) -> None:
        """Add entries. What cannot be written is told once; the program goes on."""
        if self._content is None:
            self._content = Content(self._program)
        content = self._content
        lines = b"".join(map(content.add, entries))
        try:
            if self.file is None:
                self.file = RecoveryFile.create(wanted, content.lines(), numbered=not is_named)
                self.path = self.file.path
            elif not self._is_whole or self.file.size > max(SIZE_BYTES, 4 * content.size):
                self.file.rewrite(content.lines())
            else:
                self._is_whole = False
                self.file.append(lines)
            self._is_whole, self._has_failed = True, False
        except OSError as error:
            if not self._has_failed:
                logger.warning(
                    "%s cannot be written (%s): should this program die, the results of its jobs "
                    "cannot be recovered", self.path or wanted, error.strerror,
                )  # fmt: skip
            self._has_failed = True

    def close(self, remove: bool) -> None:
        """Let go of the file; `remove`: nothing is left to recover."""
        self._content = None
        if self.file is not None:
            self.file.close(remove)
            self.file = None
