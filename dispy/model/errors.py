"""Errors for people: what happened, to which thing, why, and what to do."""


class DispyError(Exception):
    """The root of every error that dispy raises on purpose; its text is for the user."""


class JobTimeout(BaseException):
    """Raised in a job's code when its `timeout` or `cpu_time` is over, so that it can save.

    Like KeyboardInterrupt it is no Exception: code that survives the errors of a single step
    does not survive its limit by accident.
    """
