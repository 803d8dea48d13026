"""Long runs leave nothing behind: a little of what `python -m tests.soak` does for hours."""

from pathlib import Path

from soak.run import Soak


def test_traffic_of_every_kind_leaves_node_and_program_as_they_were(
    tmp_path: Path, nothing_left: None
) -> None:
    with Soak(tmp_path) as soak:
        soak.play(rounds=1)
        first = soak.count()
        soak.play(rounds=2)
        assert soak.grown_since(first) == []
        soak.end()
        assert "Traceback" not in soak.node.said
        assert not [path for path in soak.node.directory.iterdir() if path.is_dir()]
