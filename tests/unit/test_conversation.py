"""Whatever befalls links, all that two sides say arrives once and in order."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.protocol.conversation import Conversation, Said
from dispy.protocol.frames import FrameRefused


@given(st.lists(st.sampled_from(["say", "deliver", "confirm", "heard", "break"]), max_size=80))
def test_all_arrives_once_and_in_order_over_links_that_break(steps: list[str]) -> None:
    speaker, hearer = Conversation(), Conversation()
    wire: deque[Said] = deque()
    back: deque[int] = deque()
    said: list[int] = []
    heard: list[int] = []

    def take(each: Said) -> None:
        if hearer.is_new(each.number):
            heard.append(each.body[0])

    for step in [*steps, "break", *["deliver"] * len(steps)]:
        if step == "say":
            said.append(len(said))
            wire.append(speaker.say(1, [said[-1]]))
        elif step == "deliver" and wire:
            take(wire.popleft())
        elif step == "confirm" and hearer.confirm(hearer.arrived):
            back.append(hearer.confirmed)
        elif step == "heard" and back:
            speaker.taken(back.popleft())
        elif step == "break":  # what is on its way is lost, either way
            back.clear()
            wire = deque(speaker.again(hearer.arrived))
    assert heard == said
    speaker.taken(hearer.arrived)
    assert speaker.kept == 0


def test_a_gap_and_what_was_never_said_are_refused() -> None:
    conversation = Conversation()
    with pytest.raises(FrameRefused, match="number 2 came where 1 was expected"):
        conversation.is_new(2)
    with pytest.raises(FrameRefused, match="heard 1 of 0"):
        conversation.taken(1)


def test_who_has_forgotten_what_it_took_is_refused() -> None:
    conversation = Conversation()
    conversation.say(1, [])
    conversation.taken(1)
    with pytest.raises(FrameRefused, match="has forgotten"):
        conversation.again(0)


def test_one_side_may_go_on_from_what_it_has_kept_elsewhere() -> None:
    conversation = Conversation(arrived=5, said=3)
    assert not conversation.is_new(5)
    assert conversation.is_new(6)
    assert conversation.say(1, []).number == 4
