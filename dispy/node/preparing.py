"""How long code of the user's may take in a nursery: its loading and setup, and its cleanup."""

import gevent

from dispy.node.nursery import NurseryProcess

INTERRUPT_SECONDS = 2.0  # that interrupted code may take to end before its process is killed


class Limit:
    """Interrupts what a nursery runs after `seconds` (None: never), then ends the nursery."""

    def __init__(self, nursery: NurseryProcess, what: str, seconds: float | None) -> None:
        """`what` begins the sentence that tells of it ("its setup did not finish in 5 s")."""
        self._nursery, self._what = nursery, what
        self._late = False
        self._alarm = gevent.spawn_later(seconds, self._end) if seconds is not None else None

    def interrupt(self) -> None:
        """End it now."""
        if not self._late:
            self.over(None)
            self._alarm = gevent.spawn(self._end)

    def _end(self) -> None:
        self._late = True
        self._nursery.interrupt()
        gevent.sleep(INTERRUPT_SECONDS)
        self._nursery.kill()

    def over(self, error: str | None) -> str | None:
        """Take the news that it has ended, and how; return what to tell of it."""
        if self._alarm is not None:
            self._alarm.kill(block=False)
        if error is None or not self._late:
            return error
        return f"{self._what}, and was interrupted:\n{error}"
