"""Where a program's recovery file lies is settled once, by whichever cluster comes first."""

import threading
from pathlib import Path

import pytest

from dispy.client.recording import Recording


def test_two_threads_that_open_clusters_make_room_for_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, path = Recording(None), str(tmp_path / "recover")  # type: ignore[arg-type]
    made: list[str] = []
    second = threading.Thread(target=recording.choose, args=(path,))

    def make_room(path: str) -> None:
        made.append(path)
        if len(made) == 1:
            second.start()
            second.join(0.2)  # it waits for us, or would be in here by then

    monkeypatch.setattr("dispy.client.recovery_file.make_room", make_room)
    recording.choose(path)
    second.join()
    assert made == [path]
