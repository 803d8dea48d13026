"""A proof convinces exactly those who share a secret, in one session, on one side of it."""

from hypothesis import given
from hypothesis import strategies as st

from dispy.model.credentials import SECRETS_LIMIT, Secret
from dispy.protocol.proof import ANSWER_BYTES, CLAIM_BYTES, PROOF_BYTES, answer, claim, is_proven

# As `dispy secret` makes them: those that people make up cost 60 ms each.
SECRETS = [Secret(f"dispy-{number:043d}", "a test") for number in range(12)]
some_secrets = st.lists(st.sampled_from(SECRETS), max_size=SECRETS_LIMIT, unique=True)
sessions = st.binary(min_size=32, max_size=32)


@given(ours=some_secrets, theirs=some_secrets, keying=sessions)
def test_both_sides_are_proven_just_when_they_share_a_secret(
    ours: list[Secret], theirs: list[Secret], keying: bytes
) -> None:
    said, proven = answer(claim(ours, keying), theirs, keying)
    assert proven == bool(set(ours) & set(theirs))
    assert is_proven(said, ours, keying) == proven
    if not proven:
        assert not is_proven(said, theirs, keying)


@given(ours=some_secrets, keying=sessions)
def test_messages_have_one_size_however_many_secrets_there_are(
    ours: list[Secret], keying: bytes
) -> None:
    message = claim(ours, keying)
    assert len(message) == CLAIM_BYTES
    assert len(answer(message, ours, keying)[0]) == ANSWER_BYTES
    assert len(answer(message, [], keying)[0]) == ANSWER_BYTES


@given(one=sessions, other=sessions)
def test_what_is_said_in_one_session_proves_nothing_in_another(one: bytes, other: bytes) -> None:
    said, proven = answer(claim(SECRETS[:1], one), SECRETS[:1], other)
    assert proven == (one == other)
    said, _ = answer(claim(SECRETS[:1], one), SECRETS[:1], one)
    assert is_proven(said, SECRETS[:1], other) == (one == other)


@given(keying=sessions)
def test_what_one_side_says_proves_nothing_on_the_other(keying: bytes) -> None:
    asked = claim(SECRETS[:1], keying)
    said, _ = answer(asked, SECRETS[:1], keying)
    magic, proof = said[:-PROOF_BYTES], said[-PROOF_BYTES:]
    assert not is_proven(asked[:ANSWER_BYTES], SECRETS[:1], keying)
    assert not answer(magic + proof * SECRETS_LIMIT, SECRETS[:1], keying)[1]


@given(bit=st.integers(0, 8 * CLAIM_BYTES - 1), keying=sessions)
def test_any_bit_that_is_changed_in_a_claim_takes_one_proof_away(bit: int, keying: bytes) -> None:
    """With all places filled: each proof covers its own place, and the beginning covers all."""
    ours = SECRETS[:SECRETS_LIMIT]
    changed = flipped(claim(ours, keying), bit)
    place = (bit // 8 - (CLAIM_BYTES - SECRETS_LIMIT * PROOF_BYTES)) // PROOF_BYTES
    for number, secret in enumerate(ours):
        assert answer(changed, [secret], keying)[1] == (place >= 0 and number != place)


@given(bit=st.integers(0, 8 * ANSWER_BYTES - 1), keying=sessions)
def test_any_bit_that_is_changed_in_an_answer_refuses_it(bit: int, keying: bytes) -> None:
    said, proven = answer(claim(SECRETS[:1], keying), SECRETS[:1], keying)
    assert proven
    assert not is_proven(flipped(said, bit), SECRETS, keying)


@given(message=st.binary(max_size=2 * CLAIM_BYTES), keying=sessions)
def test_any_bytes_are_refused(message: bytes, keying: bytes) -> None:
    assert not answer(message, SECRETS, keying)[1]
    assert not is_proven(message, SECRETS, keying)


@given(size=st.integers(0, 2 * CLAIM_BYTES))
def test_a_right_claim_of_another_size_is_refused(size: int) -> None:
    message = (claim(SECRETS[:1], b"k" * 32) * 2)[:size]
    assert answer(message, SECRETS, b"k" * 32)[1] == (size == CLAIM_BYTES)


def flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8
    return data[:at] + bytes([data[at] ^ (1 << bit % 8)]) + data[at + 1 :]
