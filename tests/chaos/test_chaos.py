"""A hundred runs in which whatever dispy is made of comes to harm: nothing is lost.

The blocks of seeds are run side by side from the first test on, so that later tests find their
outcomes ready. A failure names its seed; `tests/chaos/run --seed=N -v` plays it again.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.plan import TOWN_SEEDS
from chaos.play import Outcome, play_all
from chaos.town import why_not

BLOCKS = int(os.environ.get("DISPY_CHAOS_BLOCKS", "10"))
TOWNS = 3  # side by side; a run is mostly waiting
DEADLINE = 600.0  # seconds for all, beside other tests


class Runs:
    """All runs, in threads of their own; outcomes as they come."""

    def __init__(self, seeds: list[int], place: Path) -> None:
        self._outcomes: dict[int, Outcome] = {}
        self._news = threading.Condition()
        self._ended, self._stopped, self._failure = False, False, ""
        self._thread = threading.Thread(target=self._run, args=(seeds, place))
        self._thread.start()

    def _run(self, seeds: list[int], place: Path) -> None:
        try:
            play_all(seeds, place, self._tell, TOWNS)
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _tell(self, outcome: Outcome) -> bool:
        with self._news:
            self._outcomes[outcome.seed] = outcome
            self._news.notify_all()
            return not self._stopped

    def outcome(self, seed: int) -> Outcome:
        """Return how the run of a seed went, once it is over."""
        with self._news:
            self._news.wait_for(lambda: seed in self._outcomes or self._ended, DEADLINE)
            assert seed in self._outcomes, f"seed {seed} was not run"
            return self._outcomes[seed]

    def stop(self) -> None:
        """Let what runs end, and begin nothing more."""
        with self._news:
            self._stopped = True
        self._thread.join()


def seeds_of(block: int) -> list[int]:
    return list(range(TOWN_SEEDS * block + 1, TOWN_SEEDS * (block + 1) + 1))


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """All runs of the tests that were asked for."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    blocks = [
        item.callspec.params["block"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    seeds = [seed for block in blocks for seed in seeds_of(block)]
    runs = Runs(seeds, tmp_path_factory.mktemp("chaos"))
    yield runs
    runs.stop()


@pytest.mark.timeout(DEADLINE)
@pytest.mark.parametrize("block", range(BLOCKS), ids=lambda block: f"from-{seeds_of(block)[0]}")
def test_nothing_is_lost_in_the_runs_of_ten_seeds(block: int, runs: Runs) -> None:
    outcomes = [runs.outcome(seed) for seed in seeds_of(block)]
    broken = [
        f"seed {outcome.seed} (tests/chaos/run --seed={outcome.seed} -v): {complaint}"
        for outcome in outcomes
        for complaint in outcome.complaints
    ]
    assert not broken, "\n".join(broken)
