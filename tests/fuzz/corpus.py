"""The inputs that are kept: one file for each target, a msgpack list of bytes."""

from pathlib import Path

import msgpack

PLACE = Path(__file__).parent / "corpus"


def load(target: str) -> list[bytes]:
    """Return a target's inputs; none where nothing was kept."""
    path = PLACE / target
    return list(msgpack.unpackb(path.read_bytes())) if path.exists() else []


def save(target: str, inputs: list[bytes]) -> None:
    """Replace a target's inputs."""
    PLACE.mkdir(exist_ok=True)
    (PLACE / target).write_bytes(msgpack.packb(sorted(inputs)))
