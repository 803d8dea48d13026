"""A loop stays awake only for brief jobs in a quick rhythm, and then only for a moment."""

from time import monotonic

import gevent

from dispy.net.waking import Awake
from dispy.system.waking import BRIEF_SECONDS, RHYTHM_SECONDS, Rhythm

DEADLINE = 30.0


def test_a_rhythm_is_two_brief_jobs_one_soon_after_the_other() -> None:
    rhythm = Rhythm()
    assert not rhythm.beat(100.0)
    assert rhythm.beat(100.0 + RHYTHM_SECONDS / 2)
    assert not rhythm.beat(100.0 + RHYTHM_SECONDS * 2)


def test_a_loop_stays_awake_after_brief_jobs_and_sleeps_soon() -> None:
    awake, deadline = Awake(), monotonic() + DEADLINE
    while not awake.is_awake:  # a machine that is busy may miss the rhythm now and then
        assert monotonic() < deadline
        awake.passed_on(1, BRIEF_SECONDS / 2)
    while awake.is_awake:
        assert monotonic() < deadline, "it never sleeps again"
        gevent.sleep(0.001)
    awake.stop()


def test_packets_long_jobs_and_unknown_ones_keep_nobody_awake() -> None:
    awake = Awake()
    for jobs, seconds in ((2, 1e-6), (1, BRIEF_SECONDS), (1, None)):
        for _ in range(3):
            awake.passed_on(jobs, seconds)
            awake.passed_back(jobs, seconds or BRIEF_SECONDS)
            assert not awake.is_awake
    awake.stop()
    for _ in range(3):
        awake.passed_on(1, 1e-6)
    assert not awake.is_awake
