"""What a worker says after it was stopped, because that was on its way, is passed over."""

import sys
from pathlib import Path
from unittest import mock

from fuzz import messages
from fuzz.choices import Choices
from fuzz.loop import Failures, alone, turn
from fuzz.nodes import Play, PlayedNursery

from dispy.node import nurseries
from dispy.protocol.messages import Kind


def test_a_result_that_crosses_the_drop_of_its_job_is_passed_over(tmp_path: Path) -> None:
    played = mock.patch.multiple(nurseries, NurseryProcess=PlayedNursery, ADOPTS_ORPHANS=False)
    with alone(played), Failures() as failures:
        play = Play(Choices(b""), tmp_path)
        play.connect(messages.IDENTITIES[0])
        turn()
        PlayedNursery.made.remove(play._nobodys)
        client = play.clients[0]
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        settings = {"implementation": sys.implementation.name, "python": here}
        client.tell(Kind.OPEN, [1, "compute", settings], [b"code"])
        turn()
        (nursery,) = PlayedNursery.made
        play._load_well(nursery)
        turn()
        client.tell(Kind.RUN, [1, [5], [b"call"], []])
        turn()
        play._load_well(nursery)
        turn()
        ((worker, _),) = nursery.workers
        assert Kind.JOBS in [frame.kind for frame in worker.frames()]
        client.frames()
        client.tell(Kind.DROP, [[5]])
        turn()
        worker.tell(Kind.DONE, [[5], [0.0], [1.0], [b"result"], []])
        turn()
        failures.look()
        assert Kind.RESULTS not in [frame.kind for frame in client.frames()]
        play.end()
