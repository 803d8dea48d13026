"""`dispy bench` and `tests/bench` measure every row; how fast is nothing that is tested here."""

import json
import subprocess
import sys
from pathlib import Path

from dispy.cli import protection
from dispy.cli.bench import KEYS
from dispy.cli.figures import keys_of
from dispy.system.interpreter import own_command

DEADLINE = 110.0  # seconds; for machines that are busy with something else
ROOT = Path(__file__).parent.parent.parent


def run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=ROOT)


def test_every_row_is_measured_on_a_local_node(nothing_left) -> None:
    done = run(own_command("bench", "--quick", "--rounds=1", "--json"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert [row["row"] for row in found["rows"]] == KEYS
    assert len(found["nodes"]) == 1
    for row in found["rows"]:
        if row["row"] == "numpy" and row["not_measured"]:
            assert row["not_measured"] == "NumPy is not installed"
        else:
            assert row["median"] > 0, row
            assert row["not_measured"] is None, row


def test_the_table_of_chosen_rows_fits_on_80_columns(nothing_left) -> None:
    done = run(own_command("bench", "--quick", "--rounds=2", "--only=submit,map,trip"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = lines[lines.index("") + 1 :]
    assert [line.split()[0] for line in table[:4]] == ["row", "map", "trip", "submit"]
    assert max(map(len, table)) <= 80, done.stdout


def test_a_named_node_is_measured_and_what_cannot_be_says_why(start_node) -> None:
    node = start_node("--name=desk", "--cpus=1")
    done = run(
        own_command("bench", f"--nodes={node.host}", "--quick", "--rounds=1", "--only=cpu,trip")
    )
    assert done.returncode == 0, done.stderr
    assert f"node desk ({node.host}), 1 processors" in done.stdout
    assert "cpu: not measured: the nodes are not this program's own" in done.stdout


def test_what_a_secret_costs_is_measured_in_every_row(nothing_left) -> None:
    done = run(own_command("bench", "--secret", "--quick", "--rounds=1", "--json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["row"] for row in found["rows"]] == keys_of(protection.PROBES)
    assert [node["name"] for node in found["nodes"]] == ["without-secret", "with-secret"]
    rows = {row["row"]: row for row in found["rows"]}
    assert all(row["median"] > 0 for row in rows.values()), rows
    assert {key for key, row in rows.items() if row["budget"]} == {
        "jobs-ratio", "bulk-ratio", "link-secret",
    }  # fmt: skip
    (ratio,), (secret,), (alone,) = (
        rows[key]["rounds"] for key in ("bulk-ratio", "bulk-secret", "bulk-openssl")
    )
    assert ratio == secret / alone


def test_the_usage_names_the_rows_of_what_a_secret_costs() -> None:
    words = " ".join(run(own_command("bench", "--help")).stdout.split())
    assert f"with --secret: {', '.join(keys_of(protection.PROBES))}" in words


def test_an_unknown_row_is_refused_with_those_there_are() -> None:
    done = run(own_command("bench", "--only=speed"))
    assert done.returncode == 2
    assert "--only: there is no row 'speed'; there are jobs, cpu, map" in done.stderr


def test_the_comparison_with_the_standard_library_measures_all_contenders(nothing_left) -> None:
    options = ["--quick", "--rounds=1", "--only=jobs,map,memory"]
    done = run([sys.executable, "-m", "tests.bench", *options])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["row", "jobs", "map", "memory"]
    for line in lines[1:3]:
        assert len(line.split("  ")) >= 8, line  # figures of all three, and two ratios
