"""Log lines as JSON. Imported only where somebody wants them: its parser costs 3 ms."""

import json
import logging
from datetime import datetime, timezone
from typing import Any

from dispy.model.events import ATTRIBUTE


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message; event and its fields where it has some.

    Fields that would hide one of the first are left out: those names mean one thing in all lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: tuple[str, dict[str, Any]] = getattr(record, ATTRIBUTE, ("", {}))
        name, fields = told
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if name:
            line = {**fields, "event": name, **line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
