"""Links break in every way; jobs go on, none runs twice that must not, none is lost or doubled.

Signs of life go every second or more often here, instead of every five: a second without network
stands for five, and ten for a minute.
"""

from netns.links import Said, Work


def test_jobs_go_on_through_a_network_that_is_cut_both_ways_or_one_way(machines, tmp_path) -> None:
    here, off, deaf, mute = machines(4)
    there = [off, deaf, mute]
    nodes = [Said(m.start_node(tmp_path, f"--name={n}")) for m, n in zip(there, "abc", strict=True)]
    work = Work(here, tmp_path, 6, nodes=[m.address for m in there], pulse_interval=1)
    work.wait_for_starts(3)
    off.ip("link", "set", "eth0", "down")
    deaf.drop("INPUT")
    mute.drop("OUTPUT")
    work.said.wait_for(*(f"node {name} ({m.address}) is away: it fell silent"
                         for m, name in zip(there, "abc", strict=True)))  # fmt: skip
    off.ip("link", "set", "eth0", "up")
    deaf.drop("INPUT", again=False)
    mute.drop("OUTPUT", again=False)
    work.said.wait_for(*(f"node {name} ({m.address}) is back"
                         for m, name in zip(there, "abc", strict=True)))  # fmt: skip
    work.open()
    assert [(end.status, end.result) for end in work.ended()] == [("Finished", n) for n in range(6)]
    assert set(work.started().values()) == {1}
    assert ") is lost" not in work.said.text
    print(work.said.text, *(node.read() for node in nodes))
