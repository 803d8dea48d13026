"""The scheduler's and the node's core keep their promises together, whatever the network does.

A failing seed names itself. `DISPY_SEED=123 pytest tests/simulation` plays it first, and as many
after it as usual.
"""

import os

import pytest
from troubles import Troubles

SEED = int(os.environ.get("DISPY_SEED", "0"))
PARTS, SEEDS = 10, 12  # of seeds, and in each part


@pytest.mark.parametrize("part", range(PARTS))
def test_every_job_ends_once_whatever_happens_on_the_way(part: int) -> None:
    recalls = set_aside = recovered = 0
    for seed in range(SEED + part * SEEDS, SEED + (part + 1) * SEEDS):
        try:
            world = Troubles(seed).run(troubles=60)
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error
        recalls += world.recalls
        set_aside += world.set_aside
        recovered += world.recovered
    assert recalls, "nothing was called back: the simulation has lost its meaning"
    assert set_aside, "no node was set aside: the simulation has lost its meaning"
    assert recovered, "no program died: the simulation has lost its meaning"


def test_a_seed_plays_the_same_twice() -> None:
    ends = []
    for _ in range(2):
        world = Troubles(SEED + 3).run(troubles=40)
        ends.append([(each.final, each.starts) for each in world.histories.values()])
    assert ends[0] == ends[1]
