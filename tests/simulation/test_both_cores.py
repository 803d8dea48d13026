"""The scheduler's and the node's core keep their promises together, whatever the network does.

A failing seed names itself. `DISPY_SEED=123 pytest tests/simulation` plays it first, and as many
after it as usual.
"""

import os

import pytest
from world import World

SEED = int(os.environ.get("DISPY_SEED", "0"))
PARTS, SEEDS = 10, 20  # of seeds, and in each part


@pytest.mark.parametrize("part", range(PARTS))
def test_every_job_ends_once_whatever_happens_on_the_way(part: int) -> None:
    recalls = 0
    for seed in range(SEED + part * SEEDS, SEED + (part + 1) * SEEDS):
        world = World(seed)
        try:
            world.run(troubles=60)
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error
        recalls += world.recalls
    assert recalls, "nothing was called back: the simulation has lost its meaning"


SEEDS_THAT_FOUND_BUGS = {
    2123: "a job went out on a new link before the list of what the node held",
}


@pytest.mark.parametrize("seed", SEEDS_THAT_FOUND_BUGS)
def test_a_seed_that_found_a_bug_finds_none(seed: int) -> None:
    World(seed).run(troubles=60)


def test_a_seed_plays_the_same_twice() -> None:
    ends = []
    for _ in range(2):
        world = World(SEED + 3)
        world.run(troubles=40)
        ends.append(
            [(owner.history.final, owner.history.starts) for owner in world.owners.values()]
        )
    assert ends[0] == ends[1]
