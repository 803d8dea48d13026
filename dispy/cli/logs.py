"""The logs of services, on standard error: sentences for people, or JSON for programs."""

import logging

TEXT = "%(asctime)s %(name)s - %(message)s"


def begin_log(form: str, debug: bool) -> None:
    """Have this process's log written; form: "text" or "json"."""
    formatter = logging.Formatter(TEXT)
    if form == "json":
        from dispy.cli.json_log import JsonFormatter

        formatter = JsonFormatter()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
