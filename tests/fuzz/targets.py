"""What is fuzzed: by name, a function of bytes that raises for a fault and for nothing else."""

from collections.abc import Callable

from fuzz import parsers
from fuzz.choices import Choices
from fuzz.nodes import fuzz_node, play_node
from fuzz.programs import fuzz_program, play_program
from fuzz.recoveries import fuzz_recovery, play_recovery
from fuzz.sharing import fuzz_sharing, play_sharing

TARGETS: dict[str, Callable[[bytes], None]] = {
    "decoder": parsers.fuzz_decoder,
    "frames": parsers.fuzz_frames,
    "hello": parsers.fuzz_hello,
    "discovery": parsers.fuzz_discovery,
    "proof": parsers.fuzz_proof,
    "settings": parsers.fuzz_settings,
    "channel": parsers.fuzz_channel,
    "journal": parsers.fuzz_journal,
    "node": fuzz_node,
    "program": fuzz_program,
    "recovery": fuzz_recovery,
    "sharing": fuzz_sharing,
}

# Those that take one step after the other.
PLAYS: dict[str, Callable[[Choices], None]] = {
    "node": play_node, "program": play_program, "recovery": play_recovery,
    "sharing": play_sharing,
}  # fmt: skip
