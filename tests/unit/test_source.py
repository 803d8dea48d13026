"""The text of a function gives the very code that runs, wherever it is compiled, or is refused."""

from __future__ import annotations

import importlib.util
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from dispy.shipping import source
from dispy.shipping.source import NoSource, Snippet, compile_snippet, snippet_of

PROGRAM = '''
from __future__ import annotations
import json, os.path
def decorate(f): return f
def plain(a, b=len("x"), *c, d: undefined = [1], **e) -> nothing:
    return a, b, c, d, json.dumps(e)
@decorate
@decorate
def decorated():
    """Doc."""
    return 1
def recursive(n):
    return recursive(n - 1) if n else os.path.join("a", "b")
one, two = (lambda x: x + 1), (lambda x: x + 2)
same = [(lambda x: x) for _ in range(2)]
several = (lambda a,
    b=(lambda: 3):
        a + 1)
umlaut = {"ä": lambda ü: "ö" + ü, "ß": lambda ü: "ø" + ü}
def text():
    if True:
        return """one
    two
 three"""
def outer(n):
	def tabbed():
		return """a
	b""", n
	return tabbed
class Private:
    __hidden = 1
    def read(self):
        return self.__hidden, __class__, Private
    def inner(self):
        def nested(): return self.__hidden, super().__init__
        return nested
    class Inside:
        def read(self): return self.__hidden
    key = lambda self: self.__hidden
def local():
    x = 1
    class Local:
        def read(self): return x, Local, self.__y
        async def wait(self): return [x async for x in self]
    return Local
def generator():
    x = yield 1
    yield from (x + y for y in range(2))
def annotated():
    def inside(a: undefined) -> also_undefined: return a
    return inside
def numbers(): return 0.0, -0.0, 1j, 1e999, (1, 1.0, True), frozenset(), ...
def deleting():
    global plain
    try:
        del plain
    finally:
        print(plain)
'''


@pytest.fixture
def module(tmp_path: Path):
    path = tmp_path / "written.py"
    path.write_text(PROGRAM, encoding="utf-8")
    specification = importlib.util.spec_from_file_location("written", path)
    made = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(made)
    return made


def every_code(code: CodeType) -> list[CodeType]:
    """Return a code and all that is in it, in order."""
    inside = [part for part in code.co_consts if isinstance(part, CodeType)]
    return [code, *(each for part in inside for each in every_code(part))]


def codes_of(code: CodeType) -> list[CodeType]:
    """Return every function's code in a module's."""
    found = []
    for part in code.co_consts:
        if isinstance(part, CodeType):
            found += codes_of(part)
            # What is neither optimized nor has new locals is a class's body.
            if part.co_flags & 1 and (not part.co_name.startswith("<") or "lambda" in part.co_name):
                found.append(part)
    return found


def test_every_function_is_found_and_gives_its_code(module) -> None:
    codes = codes_of(compile(PROGRAM, module.__file__, "exec", dont_inherit=True))
    assert len(codes) > 25
    for code in codes:
        snippet = snippet_of(code)
        assert source._same(compile_snippet(snippet), code), snippet
        assert compile_snippet(snippet).co_filename == module.__file__
        if sys.version_info >= (3, 11):
            names = [part.co_qualname for part in every_code(compile_snippet(snippet))]
            assert names == [part.co_qualname for part in every_code(code)]
        assert snippet.line == code.co_firstlineno or snippet.name == "decorated"


def test_a_snippet_is_the_function_and_nothing_else(module) -> None:
    assert snippet_of(module.one.__code__).text == "lambda x: x + 1"
    assert snippet_of(module.two.__code__).text == "lambda x: x + 2"
    assert snippet_of(module.umlaut["ß"].__code__).text == 'lambda ü: "ø" + ü'
    assert snippet_of(module.decorated.__code__).text.startswith("def decorated():")
    assert module.text() == FunctionType(rebuilt(module.text), {})()


def rebuilt(function: Callable) -> CodeType:
    """Return its code by way of its text, from a plain tuple as it travels."""
    return compile_snippet(Snippet(*tuple(snippet_of(function.__code__))))


def test_code_within_rebuilt_code_has_source_without_any_file(module) -> None:
    class_code = module.local.__code__
    code = rebuilt(module.local)
    Path(module.__file__).unlink()
    linecache.clearcache()
    snippet_of.cache_clear()
    for part in codes_of(code):
        again = compile_snippet(snippet_of(part))
        assert source._same(again, part)
    assert source._same(compile_snippet(snippet_of(code)), class_code)


def test_a_file_that_has_changed_since_is_not_taken_for_the_source(module) -> None:
    path = Path(module.__file__)
    path.write_text(PROGRAM.replace("return 1", "return 2"), encoding="utf-8")
    linecache.clearcache()
    snippet_of.cache_clear()
    with pytest.raises(NoSource, match=r"'decorated'.* not what stands in line .*changed since"):
        snippet_of(module.decorated.__code__)
    assert snippet_of(module.text.__code__)


def test_functions_of_a_rewritten_module_are_taken_by_their_place() -> None:
    def asserting(n: int) -> int:
        assert n > 0, "pytest changes this"
        return n

    assert "assert n > 0" in snippet_of(asserting.__code__).text
    assert FunctionType(rebuilt(asserting), {})(1) == 1


def test_what_exec_made_is_named() -> None:
    names: dict = {}
    exec("def made(): return 1\nsmall = lambda: 2", names)
    for name in ("made", "small"):
        said = names[name].__code__.co_name
        with pytest.raises(NoSource, match=f"{said}.* has no source text: it was made by exec"):
            snippet_of(names[name].__code__)


def test_a_notebooks_cell_has_source() -> None:
    cell, name = "def in_cell(n):\n    return n * 2\n", "/tmp/ipykernel_1/123.py"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    names: dict = {}
    exec(compile(cell, name, "exec"), names)
    assert snippet_of(names["in_cell"].__code__).text == cell


def test_a_text_that_this_python_does_not_know_is_told() -> None:
    from dispy.model.errors import DispyError

    snippet = Snippet("def f(): return 1 +++", "f", 3, "", (), (), (), "file.py", "f")
    with pytest.raises(DispyError, match=rf"'f' \(file.py, line 3\).*{sys.version_info[1]}"):
        compile_snippet(snippet)
