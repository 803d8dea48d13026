"""Keeps a gevent loop awake for a moment after brief jobs; see `dispy.system.waking`."""

from time import monotonic

from gevent import get_hub

from dispy.system.waking import AWAKE_SECONDS, BRIEF_SECONDS, Rhythm, yield_processor


class Awake:
    """Belongs to the loop of the hub in whose thread it is made and used."""

    def __init__(self) -> None:
        self._idle = get_hub().loop.idle()  # while it is active the loop polls and does not wait
        self._rhythm = Rhythm()
        self._quick = self._stopped = False
        self._until = 0.0

    def passed_on(self, jobs: int, seconds: float | None) -> None:
        """Jobs were passed on, which are thought to take so long; None: that is not known."""
        if jobs == 1 and seconds is not None and seconds < BRIEF_SECONDS:
            self._quick = self._rhythm.beat(monotonic())
            self._stay()

    def passed_back(self, jobs: int, seconds: float) -> None:
        """Results were passed on, of jobs that took so long each."""
        if jobs == 1 and seconds < BRIEF_SECONDS:
            self._stay()

    @property
    def is_awake(self) -> bool:
        """Whether the loop polls now."""
        return bool(self._idle.active)

    def _stay(self) -> None:
        if self._quick and not self._stopped:
            self._until = monotonic() + AWAKE_SECONDS
            if not self.is_awake:
                self._idle.start(self._look)

    def _look(self) -> None:
        if monotonic() > self._until:
            self._idle.stop()
        else:
            yield_processor()

    def stop(self) -> None:
        """Free the watcher; nothing keeps the loop awake any more."""
        if not self._stopped:
            self._stopped = True
            self._idle.stop()
            self._idle.close()
