"""Whether this process itself has slept: whoever slept must not take others for silent.

A process that was stopped, starved of processors, or on a machine that was suspended, finds that
all others have said nothing for as long. It notices by a beat of its own that came late, and
counts their silence from then on.
"""


class Rhythm:
    """The beat of one greenlet that looks at links from time to time; seconds of `monotonic`."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._awake_since = now

    def beat(self, now: float, late: float) -> None:
        """Take note of a beat; `late`: seconds after the last one from which on we have slept."""
        self._look(now, late)
        self._last = now

    def silent_since(self, heard: float, now: float, late: float) -> float:
        """Return the second from which on the silence of somebody counts who was heard then.

        Asked by others than the beat's greenlet too: they may wake up before that does.
        """
        self._look(now, late)
        return max(heard, self._awake_since)

    def _look(self, now: float, late: float) -> None:
        if now - self._last > late:
            self._last = self._awake_since = now
