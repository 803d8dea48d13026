"""Every program under examples/ runs as it stands and ends by itself."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    "node_setup.py": (r"three is number 3 of the words on \S+\nfive is number 5", []),
    "shared_counter.py": (r"counted 800 of 800 on 1 nodes", ["100"]),
    "replace_data.py": (r"five apples cost 15\nfive apples cost 35 now", []),
    "send_files.py": (r"table1.txt: 10 lines\ntable2.txt: 10 lines", ["2"]),
    "run_script.py": (
        r"numbers0.txt exit status 1 the sum is 0\nnumbers1.txt exit status 0 the sum is 45",
        [],
    ),
    "choose_nodes.py": (r"(ran on \S+; \d+ processors to use\n){5}", []),
    "ssh_tunnel.py": (r"squares from \S+ \[1, 4, 9, 16, 25\]", []),
    "leave_and_attach.py": (r"(the square of \d is \d+\n){5}", []),
    "map_and_await.py": (
        r"1 8 27 64 \(five is right out\) 216\b(?s:.*)awaited: \[0, 1, 8",
        ["7"],
    ),
}


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(
    run_program: Callable[..., Any], start_scheduler: Callable[..., Any],
    start_node: Callable[..., Any], name: str,
) -> None:  # fmt: skip
    pattern, arguments = SAYS[name]
    if "scheduler_host" in (EXAMPLES / name).read_text():
        start_scheduler(start_node(host="127.0.0.1"), host="127.0.0.1")
    ran = run_program((EXAMPLES / name).read_text(), *arguments)
    assert ran.end() == 0, ran.output
    assert re.search(pattern, ran.output), ran.output
