"""Errors for people: what happened, to which thing, why, and what to do."""


class DispyError(Exception):
    """The root of every error that dispy raises on purpose; its text is for the user."""
