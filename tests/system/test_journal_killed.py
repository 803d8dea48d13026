"""A journal whose process is killed: what was reported is there, and nothing by halves.

For longer: `DISPY_KILLS=500 pytest --timeout=0 tests/system/test_journal_killed.py`.
"""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

from system.journal_writer import ON_THE_WAY, units
from unit.journal_model import Model, view_of

from dispy.scheduler.journal import SqliteJournal

KILLS = int(os.environ.get("DISPY_KILLS", "8"))
WRITER = Path(__file__).with_name("journal_writer.py")


def test_what_is_committed_outlives_a_kill_at_any_instant(tmp_path: Path) -> None:
    seed = int(os.environ.get("DISPY_SEED", "0")) or Random().randrange(1, 1_000_000)
    random, directory = Random(seed), str(tmp_path / "journal")
    model, taken, all_units = Model(), 0, units(seed)
    with_files = False
    for _ in range(KILLS):
        if random.random() < 0.5:
            said = written(directory, seed, reports=random.randrange(1, 60))
        else:
            said = written(directory, seed, instructions=random.randrange(1, 6000))
        reported = int(said[-1]) if said else taken
        journal = SqliteJournal(directory, failed=lambda why: None)
        known = journal.load()
        recorded = known.heard.get(1, 0)
        assert taken <= reported <= recorded <= reported + ON_THE_WAY, f"seed {seed}"
        for unit in islice(all_units, recorded - taken):
            for entry in unit:
                model.take(entry)
        taken = recorded
        assert view_of(journal, known) == model.view(), f"seed {seed}"
        beside = {int(path.name) for path in (tmp_path / "journal/beside").iterdir()}
        assert beside <= journal._rows.needed(), f"seed {seed}"
        with_files = with_files or bool(beside)
        journal.close()
    assert with_files


def written(directory: str, seed: int, reports: int = 0, instructions: int = 0) -> list[str]:
    """Kill a writer after so many reports, or have it kill itself in the middle of a write; return
    what it has reported."""
    command = [sys.executable, str(WRITER), directory, str(seed), str(instructions)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            said = list(islice(writer.stdout, reports or None))
        finally:
            writer.kill()
        said += writer.stdout.readlines()  # whole lines: each was one write
    assert len(said) >= reports, f"the writer ended by itself: {said}"
    assert writer.returncode == -signal.SIGKILL
    return said
