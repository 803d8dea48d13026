"""The source text of a function's code, and code from such text: for nodes with another Python.

A `Snippet` is the text of one `def` or `lambda` with what it takes to compile it anywhere so
that its names mean the same: which of them are cells, and in which class it stands (private
names, `__class__`). Decorators, defaults and annotations are left out: they have been evaluated.
What is handed out was compiled here first, and compared with the code that runs here.
"""

import __future__

import ast
import inspect
import linecache
import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, NamedTuple

from dispy.model.errors import DispyError

ORIGINS = 20_000  # codes whose text is remembered; each a few hundred bytes
_FUTURES = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class NoSource(DispyError):
    """The text of a function is not to be had; the message is a clause ("function 'f' ...")."""


class Snippet(NamedTuple):
    """The text of one function."""

    text: str  # whole lines of a `def`, as they stand; exactly a lambda
    name: str  # of the code, "<lambda>" for a lambda
    line: int  # of the text's beginning in its file
    within: str  # the innermost class around it, or ""
    cells: tuple[str, ...]  # names that are variables of the functions around it
    futures: tuple[str, ...]  # what it was compiled with of __future__
    # Of the names that it uses, those that the file imports: from 3.11 on, calls of what is in
    # these are compiled in another way. The result is the same.
    imports: tuple[str, ...]
    file: str
    qualified: str


# Code that was made from a snippet, or stands in such code -> that snippet. A worker has no
# files to look into when it sends a function back.
_origins: dict[CodeType, Snippet] = {}


@lru_cache(maxsize=1000)
def snippet_of(code: CodeType) -> Snippet:
    """Return the text of a function's code; raises NoSource."""
    origin = _origins.get(code)
    if origin is not None:
        return (
            origin if origin.name == code.co_name and _fits(origin, code) else _part(origin, code)
        )
    if code.co_filename.startswith("<") and not linecache.getlines(code.co_filename):
        raise NoSource(f"{_told(code)} has no source text: it was made by exec or typed in")
    found = _in_file(code)
    if found is None:
        linecache.checkcache(code.co_filename)
        found = _in_file(code)
    if found is not None:
        return found
    if not linecache.getlines(code.co_filename):
        raise NoSource(f"{_told(code)} has no source text: there is no file {code.co_filename!r}")
    raise NoSource(
        f"{_told(code)} is not what stands in line {code.co_firstlineno} of "
        f"{code.co_filename!r}, which has changed since"
    )


def compile_snippet(snippet: Snippet) -> CodeType:
    """Return the code of a snippet; raises DispyError where this Python does not take it."""
    try:
        code = _compiled(snippet)
    except (SyntaxError, ValueError, LookupError) as error:
        raise DispyError(
            f"function {snippet.qualified!r} ({snippet.file}, line {snippet.line}) cannot be "
            f"compiled by {sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}, "
            f"which runs here: {error}"
        ) from None
    if code not in _origins:
        while len(_origins) > ORIGINS:
            del _origins[next(iter(_origins))]
        for part in _codes(code):
            _origins[part] = snippet
    return code


@lru_cache(maxsize=1000)
def _compiled(snippet: Snippet) -> CodeType:
    node = _parse(snippet)
    ast.increment_lineno(node, snippet.line - 1)
    statement: ast.stmt
    if isinstance(node, ast.Lambda):
        statement = ast.copy_location(ast.Expr(node), node)
    else:
        statement = node
        node.decorator_list, node.returns = [], None
        if hasattr(node, "type_params"):
            node.type_params = []
    _strip(node.args)
    outside = [name for name in snippet.cells if not (snippet.within and name == "__class__")]
    bound = snippet.within or snippet.name
    frame = [f"import {name}" for name in snippet.imports]  # see Snippet
    frame.append(f"def _cells({', '.join(outside)}):")
    is_global = bound.isidentifier() and bound not in outside
    if is_global:
        frame.append(f" global {bound}")  # what stands in there may use it
    frame.append(f" class {snippet.within}: pass" if snippet.within else " pass")
    tree = ast.parse("\n".join(frame))
    inmost: Any = tree.body[-1]
    if snippet.within:
        inmost = inmost.body[-1]
    inmost.body[-1] = statement
    flags = sum(_FUTURES.get(name, 0) for name in snippet.futures)
    code: CodeType = compile(tree, snippet.file, "exec", flags, dont_inherit=True)
    for name in ("_cells", snippet.within, snippet.name) if snippet.within else (
        "_cells", snippet.name
    ):  # fmt: skip
        code = next(part for part in _parts(code) if part.co_name == name)
    if code.co_freevars != snippet.cells:
        raise LookupError(f"its cells are {code.co_freevars}, not {snippet.cells}")
    compiled_as = bound if is_global else f"_cells.<locals>.{bound}"
    if snippet.within:
        compiled_as += f".{snippet.name}"
    return _renamed(code, compiled_as, snippet.qualified)


def _renamed(code: CodeType, before: str, now: str) -> CodeType:
    """Return code, and what is in it, with another qualified name.

    Functions made in it are named by a constant in it before 3.11, class bodies always.
    """
    if before == now:
        return code
    inside = "." if _is_class(code) else ".<locals>."
    names = {before: now} if _is_class(code) else {}
    constants: list[object] = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            ending = inside + constant.co_name
            names[before + ending] = now + ending
            constant = _renamed(constant, before + ending, now + ending)
        elif isinstance(constant, str):
            constant = names.get(constant, constant)
        constants.append(constant)
    if sys.version_info >= (3, 11):
        return code.replace(co_consts=tuple(constants), co_qualname=now)
    return code.replace(co_consts=tuple(constants))


def _is_class(code: CodeType) -> bool:
    """Say whether code is the body of a class."""
    return not code.co_flags & inspect.CO_OPTIMIZED


def _parse(snippet: Snippet) -> _Function:
    """Return the syntax tree of a snippet; its lines count from 1."""
    if snippet.name == "<lambda>":
        expression = ast.parse(f"({snippet.text})", mode="eval").body
        if isinstance(expression, ast.Lambda):
            return expression
        raise SyntaxError("it is no lambda")
    statement: ast.AST = ast.parse(_whole(snippet.text)).body[0]
    if isinstance(statement, ast.If):
        ast.increment_lineno(statement, -1)
        statement = statement.body[0]
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return statement
    raise SyntaxError("it is no function")


def _whole(text: str) -> str:
    """Return text that parses, whatever its indentation, which texts in it must keep."""
    return f"if 1:\n{text}" if text[:1] in " \t\f" else text


def _strip(arguments: ast.arguments) -> None:
    """Take out what was evaluated when the function was defined."""
    nothing = ast.Constant(None)
    arguments.defaults = [ast.copy_location(nothing, each) for each in arguments.defaults]
    arguments.kw_defaults = [
        ast.copy_location(nothing, each) if each is not None else None
        for each in arguments.kw_defaults
    ]
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for argument in (*named, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None


# -- finding a code's text


class _Place(NamedTuple):
    """A function in a syntax tree."""

    node: _Function
    within: str  # the innermost class around it, or ""
    qualified: str


class _Text(NamedTuple):
    """A file, or a snippet in which others stand, prepared for looking up functions."""

    lines: list[str]
    # code's name and first line -> functions there
    functions: dict[tuple[str, int], list[_Place]]
    imports: frozenset[str]  # names


def _in_file(code: CodeType) -> Snippet | None:
    lines = linecache.getlines(code.co_filename)
    if not lines:
        return None
    try:
        text = _prepared("".join(lines), "", "")
    except SyntaxError:  # edited, or in another language
        return None
    found = _find(text, code, text.imports, 1)
    exact = [snippet for snippet in found if _fits(snippet, code)]
    if exact:
        return exact[0]
    if len(found) == 1 and _is_rewritten(code.co_filename):
        return found[0]
    return None


def _part(origin: Snippet, code: CodeType) -> Snippet:
    """Return the text of code that stands in a snippet's; raises NoSource."""
    around = origin.qualified.rpartition(".")[0]
    around += "." if around else ""
    text = _prepared(origin.text, origin.within, around, origin.name == "<lambda>")
    for snippet in _find(text, code, origin.imports, origin.line):
        if _fits(snippet, code):
            return snippet
    raise NoSource(f"{_told(code)} is not to be found in the text of {origin.qualified!r}")


@lru_cache(maxsize=200)
def _prepared(text: str, within: str, around: str, is_lambda: bool = False) -> _Text:
    tree = ast.parse(f"({text})" if is_lambda else _whole(text))
    if not is_lambda and _whole(text) != text:
        ast.increment_lineno(tree, -1)
    functions: dict[tuple[str, int], list[_Place]] = {}
    for place in _places(tree, within, around):
        decorators = getattr(place.node, "decorator_list", [])
        first = decorators[0].lineno if decorators else place.node.lineno
        functions.setdefault((_name(place.node), first), []).append(place)
    lines = text.splitlines(keepends=True)
    if is_lambda:
        lines[0] = f"({lines[0]}"  # the columns of the tree count it
    return _Text(lines, functions, frozenset(_imported(tree)))


def _places(tree: ast.AST, within: str, around: str) -> Iterator[_Place]:
    """Yield all functions; `around` leads their qualified names."""
    left: list[tuple[ast.AST, str, str]] = [(tree, within, around)]
    while left:
        node, within, around = left.pop()
        if isinstance(node, _Function):
            yield _Place(node, within, around + _name(node))
            around = f"{around}{_name(node)}.<locals>."
        elif isinstance(node, ast.ClassDef):
            within, around = node.name, f"{around}{node.name}."
        left.extend((child, within, around) for child in ast.iter_child_nodes(node))


def _name(node: _Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module's top level imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif not isinstance(node, _Function | ast.ClassDef):
            yield from _imported(node)


def _find(text: _Text, code: CodeType, imported: Collection[str], offset: int) -> list[Snippet]:
    """Return the functions that may be this code; the text begins at line `offset`."""
    name = code.co_name
    used = {used for part in _codes(code) for used in part.co_names}
    imports = tuple(sorted(used.intersection(imported)))
    futures = tuple(each for each, flag in _FUTURES.items() if code.co_flags & flag)
    return [
        Snippet(
            _cut(text.lines, node), name, node.lineno + offset - 1, within, code.co_freevars,
            futures, imports, code.co_filename, getattr(code, "co_qualname", qualified),
        )
        for node, within, qualified in text.functions.get(
            (name, code.co_firstlineno - offset + 1), []
        )
    ]  # fmt: skip


def _cut(lines: list[str], node: _Function) -> str:
    """Return the text of a function: whole lines, or from column to column for a lambda."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    cut = lines[node.lineno - 1 : node.end_lineno]
    if not isinstance(node, ast.Lambda):
        return "".join(cut)
    cut[-1] = cut[-1].encode()[: node.end_col_offset].decode()  # columns count UTF-8's bytes
    cut[0] = cut[0].encode()[node.col_offset :].decode()
    return "".join(cut)


def _is_rewritten(file: str) -> bool:
    """Say whether a file's modules are loaded by somebody who changes code, as pytest does."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == file:
            loader = getattr(module, "__loader__", None)
            return loader is not None and type(loader) is not SourceFileLoader
    return False


def _fits(snippet: Snippet, code: CodeType) -> bool:
    """Say whether a snippet gives just this code here."""
    try:
        return _same(_compiled(snippet), code)
    except (SyntaxError, ValueError, LookupError, UnicodeError):
        return False


def _same(one: object, other: object) -> bool:
    """Compare code, and constants in it, apart from where they stand."""
    if type(one) is not type(other):
        return False
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        return (
            one.co_code == other.co_code
            and one.co_name == other.co_name
            and one.co_names == other.co_names
            and one.co_varnames == other.co_varnames
            and one.co_freevars == other.co_freevars
            and one.co_cellvars == other.co_cellvars
            and one.co_flags | inspect.CO_NESTED == other.co_flags | inspect.CO_NESTED
            and one.co_argcount == other.co_argcount
            and one.co_posonlyargcount == other.co_posonlyargcount
            and one.co_kwonlyargcount == other.co_kwonlyargcount
            and _same(one.co_consts, other.co_consts)
        )
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float | complex):  # zero has a sign, and not every number equals itself
        return repr(one) == repr(other)
    return one == other


def _parts(code: CodeType) -> Iterator[CodeType]:
    return (part for part in code.co_consts if isinstance(part, CodeType))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in _parts(code):
        yield from _codes(part)


def _told(code: CodeType) -> str:
    name = getattr(code, "co_qualname", code.co_name)
    return f"function {name!r}"
