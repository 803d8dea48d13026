"""Every program under examples/ runs as it stands and ends by itself."""

import os
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "sample.py": (r"job 3 ran on \S+ \(127\.0\.0\.1\) for 0\.\d\d s", ["4"]),
    "provisional_results.py": (r"job \d has 0\.9999\d\d: good enough", ["3"]),
    "bounded_submit.py": (r"the sum of 200 squares is 2646700", ["200"]),
    "longrun.py": (r"job \d: 3\.1\d\d\d from \d+ points \(Finished\)", ["2"]),
    "job_scheduler.py": (r"there are 669 primes below 5000", ["10"]),
    "delegate.py": (
        r"(?s)(?=.*longest: whatever\n)(?=.*letters: 8\n)(?=.*mistake failed: KeyError)",
        [],
    ),
    "each_node.py": (rf"is 0 {os.uname().sysname} {os.uname().machine}", []),
    "obj_instances.py": (r"order 1 costs 7; the node printed: pricing order 1\n", []),
    "parameter_search.py": (r"best 1\.414, 2 refused", []),
    "word_count.py": (r"quick 4\ndog 3\nthe 3\na 2\n", []),
    "map_and_await.py": (
        r"1 8 27 64 \(five is right out\) 216\b(?s:.*)awaited: \[0, 1, 8",
        ["7"],
    ),
}


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(run_program, name: str) -> None:
    pattern, arguments = SAYS[name]
    ran = run_program((EXAMPLES / name).read_text(), *arguments)
    assert ran.end() == 0, ran.output
    assert re.search(pattern, ran.output), ran.output
