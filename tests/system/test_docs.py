"""What the pages say is so: they build, their programs run, their options and names exist."""

import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import dispy
from dispy.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
TEXTS = [
    ROOT / f"{name}.rst" for name in ("README", "CONTRIBUTING", "CHANGELOG", "examples/README")
]
PAGES = [*TEXTS, *sorted(DOCS.glob("*.rst"))]
NOT_PROGRAMS = {"architecture.rst"}  # its blocks are pictures of data

BLOCK = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
PRINTS = re.compile(r"# prints (.*)$", re.MULTILINE)
CANONICAL_SLEEP = "time.sleep(n)"  # seconds, in the README's program


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield each block of Python on a page, with the number of lines before it."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield text[: match.start(2)].count("\n"), textwrap.dedent(match[2])


def as_program(page: Path) -> str:
    """Return the blocks of a page, one after another, as a program with the page's line numbers."""
    program = ""
    for before, block in blocks(page):
        program += "\n" * (before - program.count("\n")) + block.rstrip("\n") + "\n"
    return program


def runnable_pages() -> list[Path]:
    """Return the pages that have Python in them."""
    return [page for page in PAGES if page.name not in NOT_PROGRAMS and any(blocks(page))]


def assert_told(wanted: list[str], output: str) -> None:
    """Fail unless the lines `wanted` are in the output, in that order."""
    lines = iter(output.splitlines())
    for line in wanted:
        assert line in lines, f"{line!r} was not printed, or not in this order:\n{output}"


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-E", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("html/*.html")}
    assert "JobCluster" in pages["client.html"]
    assert not [name for name, page in pages.items() if "``" in page]  # such as **``name``**


def test_every_page_says_something_that_docutils_understands() -> None:
    from docutils.core import publish_doctree

    for page in TEXTS:  # the README is what a package index shows, without Sphinx
        settings = {"report_level": 2, "halt_level": 2, "file_insertion_enabled": False}
        publish_doctree(page.read_text(encoding="utf-8"), settings_overrides=settings)


@pytest.mark.parametrize("page", runnable_pages(), ids=lambda page: page.name)
def test_the_programs_on_a_page_run_and_print_what_it_says(
    run_program: Callable[..., Any],
    start_node: Callable[..., Any],
    start_scheduler: Callable[..., Any],
    page: Path,
) -> None:
    source = as_program(page).replace(CANONICAL_SLEEP, "time.sleep(n / 100)")
    if "SharedJobCluster" in source:
        start_scheduler(start_node(host="127.0.0.1"), host="127.0.0.1")
    program = run_program(source)
    assert program.end() == 0, f"{page.name}, with its line numbers:\n{program.output}"
    assert "failed" not in program.output, program.output
    assert_told(PRINTS.findall(source), program.output)


def test_every_example_is_on_their_page_and_says_what_it_shows() -> None:
    page = (ROOT / "examples" / "README.rst").read_text(encoding="utf-8")
    for path in sorted((ROOT / "examples").glob("*.py")):
        assert f"``{path.name}``" in page
        assert path.read_text(encoding="utf-8").startswith('"""'), f"{path.name} has no docstring"


# -- commands and names


COMMAND = re.compile(r"(?<![\w/.-])(?:\S*/)?dispy (" + "|".join(COMMANDS) + r")\b([^\n`]*)")
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def usage(command: str) -> str:
    return import_module(f"dispy.cli.{command}").__doc__ or ""


def options_of(command: str) -> set[str]:
    return set(OPTION.findall(usage(command)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_on_a_page_is_one_of_its_command(page: Path) -> None:
    for command, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
        for option in OPTION.findall(rest.partition("#")[0]):
            assert option in options_of(command), f"dispy {command} {option}"


def test_the_node_page_has_every_option_of_a_node() -> None:
    page = (DOCS / "node.rst").read_text(encoding="utf-8")
    terms = set(OPTION.findall("\n".join(re.findall(r"^``-.*$", page, re.MULTILINE))))
    assert terms == options_of("node") - {"--serve-descriptor"}  # which is for dispy itself


def test_every_variable_on_a_page_is_read_by_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dispy").rglob("*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for page in PAGES:
        for name in re.findall(r"DISPY_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8")):
            assert name in code, f"{page.name}: {name}"


def public_methods(kind: type) -> set[str]:
    return {
        name for name, member in inspect.getmembers(kind)
        if inspect.isfunction(member) and not name.startswith("_")
    }  # fmt: skip


def test_the_client_page_has_every_argument_method_and_attribute() -> None:
    page = (DOCS / "client.rst").read_text(encoding="utf-8")
    arguments = set(inspect.signature(dispy.JobCluster.__init__).parameters) - {"self"}
    said = set(re.findall(r"[`'](\w+)(?:=\w+)?[`']", page))
    assert arguments <= said
    attributes = {name for name in dispy.DispyJob.__slots__ if not name.startswith("_")}
    assert attributes <= said
    methods = public_methods(dispy.JobCluster) | public_methods(dispy.DispyJob)
    described = set(
        re.findall(r"(?:method:: (?:dispy\.\w+\.)?|^ {15}dispy\.\w+\.)(\w+)\(", page, re.M)
    )
    assert methods <= described | said
    assert described <= methods | {"__call__", "allocate"}


def test_every_public_name_is_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in dispy.__all__:
        assert re.search(rf"\b{name}\b", pages), name
