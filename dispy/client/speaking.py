"""How the library speaks: through `logging`, and on stderr only where nobody configured that."""

import logging
import sys

LOGGER = logging.getLogger("dispy")
FORMAT = "%(asctime)s %(name)s - %(message)s"


class _WhereNobodyListens(logging.Handler):
    """Writes to stderr while the program itself has no handler for our messages."""

    def emit(self, record: logging.LogRecord) -> None:
        others = [handler for handler in LOGGER.handlers if handler is not self]
        if not others and not logging.root.handlers and sys.stderr is not None:
            sys.stderr.write(f"{self.format(record)}\n")  # at once: other processes write too


_HANDLER = _WhereNobodyListens()  # one, lest two threads add two, and each leave it to the other
_HANDLER.setFormatter(logging.Formatter(FORMAT))


def set_level(level: int, given: bool) -> None:
    """Set the level of dispy's loggers, and speak on stderr where nothing else would.

    One that was not `given` as an argument does not replace what the program has set.
    """
    LOGGER.addHandler(_HANDLER)
    if given or LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(level)


# dispy 4.15's logger had these two besides; times are always shown, and nothing is held back.
LOGGER.show_ms = lambda on=True: None  # type: ignore[attr-defined]
LOGGER.flush = lambda: None  # type: ignore[attr-defined]
for _name in ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL"):
    # Programs written for dispy 4 say `loglevel=dispy.logger.DEBUG`.
    setattr(LOGGER, _name, getattr(logging, _name))
