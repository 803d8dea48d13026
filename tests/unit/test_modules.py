"""Which modules of the user's own a computation imports is found without running anything."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispy.model.errors import DispyError
from dispy.shipping.modules import files_of, find_module, imports_in, is_own, own_modules

TREE = {
    "outer_one.py": """
        import os, json as j, inner_pack.deep.low
        from inner_pack import deep, CONSTANT
        def late():
            from inner_pack.other import thing
            class Local:
                import alone_mod
    """,
    "inner_pack/__init__.py": "CONSTANT = 1\n",
    "inner_pack/other.py": "from .deep import *\nfrom . import sibling\nthing = 1\n",
    "inner_pack/sibling.py": "from .. import nothing_above\n",
    "inner_pack/never.py": "raise RuntimeError\n",
    "inner_pack/deep/__init__.py": "",
    "inner_pack/deep/low.py": "raise RuntimeError('is not run to find its imports')\n",
    "inner_pack/deep/table.txt": "1 2",
    "alone_mod.py": "import outer_one\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("inner_pack",)]:
        del sys.modules[name]


def places(names: list[str]) -> list[str]:
    return [file.place for file in own_modules(names)]


def test_all_that_a_module_imports_is_found_and_nothing_else(tree: Path) -> None:
    assert places(["outer_one", "json", "pytest", "no_such_module"]) == [
        "alone_mod.py", "inner_pack/__init__.py", "inner_pack/deep/__init__.py",
        "inner_pack/deep/low.py", "inner_pack/other.py", "inner_pack/sibling.py", "outer_one.py",
    ]  # fmt: skip
    assert not {"outer_one", "inner_pack", "alone_mod"} & sys.modules.keys(), "something was run"


def test_what_has_changed_is_looked_at_again(tree: Path) -> None:
    assert places(["inner_pack.sibling"]) == ["inner_pack/__init__.py", "inner_pack/sibling.py"]
    (tree / "inner_pack/sibling.py").write_text("import alone_mod\n# longer than before\n")
    assert "alone_mod.py" in places(["inner_pack.sibling"])


def test_imports_are_found_wherever_they_stand() -> None:
    text = "from . import b\nfrom .c import d, e\nasync def f():\n  import g.h as i\n"
    code = compile(text, "a.py", "exec")
    assert list(imports_in(code, "a")) == ["a", "a.b", "a.c", "a.c.d", "a.c.e", "g.h"]
    assert list(imports_in(compile("from ... import x", "a.py", "exec"), "a")) == []


def test_a_package_that_is_named_comes_whole(tree: Path) -> None:
    package = importlib.import_module("inner_pack.deep")
    assert sorted(file.place for file in files_of(package)) == [
        "inner_pack/__init__.py", "inner_pack/deep/__init__.py", "inner_pack/deep/low.py",
        "inner_pack/deep/table.txt",
    ]  # fmt: skip


def test_what_is_installed_is_not_ones_own() -> None:
    assert not is_own(pytest)
    assert not is_own(sys)
    assert not is_own(textwrap)
    assert not is_own(importlib.import_module("dispy.model.errors"))
    assert is_own(sys.modules[__name__])
    assert find_module("dispy.no_such") is None


def test_a_module_without_a_file_cannot_be_named() -> None:
    with pytest.raises(DispyError, match="'made_up' has no file"):
        files_of(type(sys)("made_up"))
    assert files_of(textwrap) == []
