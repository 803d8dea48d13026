"""Classes whose methods the standard library wrote: dataclasses, named tuples, enums.

Their generated methods have no source text, and look different in each version of Python. So
a node with another Python generates them anew, from what the class was made of.
"""

import collections
import dataclasses
import enum
import inspect
import sys
import typing
from collections.abc import Iterator
from types import CodeType, FunctionType, MemberDescriptorType, MethodType
from typing import Any

DATACLASS, _NAMED_TUPLE, ENUM = "dataclass", "named tuple", "enum"

_Params = dataclasses._DataclassParams  # type: ignore[attr-defined]
_SENTINELS = {
    type(getattr(dataclasses, name)): name for name in ("MISSING", "KW_ONLY")
}  # they are compared by identity
_REPLACE = getattr(dataclasses, "_replace", None) if sys.version_info >= (3, 13) else None
_BY_DATACLASS = (
    "__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__",
    "__setattr__", "__delattr__", "__replace__",
)  # fmt: skip
_BY_NAMEDTUPLE = (
    "__new__", "_make", "_replace", "__replace__", "__repr__", "_asdict", "__getnewargs__",
)  # fmt: skip
_OF_ENUM = {"_value_", "_name_", "__objclass__", "_sort_order_"}  # in each member
# Of slots that the sender's version of Python does not have.
_DEFAULTS = {
    "match_args": True, "kw_only": False, "slots": False, "weakref_slot": False, "doc": None,
}  # fmt: skip


def kind_of(made: type) -> str:
    """Return which part of the standard library wrote methods of a class; "" for none."""
    if issubclass(type(made), enum.EnumMeta):
        return ENUM
    if "__dataclass_params__" in vars(made):
        return DATACLASS
    if made.__bases__ == (tuple,) and "_field_defaults" in vars(made):
        return _NAMED_TUPLE
    return ""


def generated_code(made: type, kind: str) -> Iterator[CodeType]:
    """Yield the code of all generated methods, which has no source text."""
    for name, method in vars(made).items():
        if _is_generated(name, method, kind):
            function = _function(method)
            while isinstance(function, FunctionType):
                yield function.__code__
                function = getattr(function, "__wrapped__", None)


def _function(method: Any) -> Any:
    """Return the function in what a class's table has."""
    return method.__func__ if isinstance(method, classmethod | staticmethod) else method


def _is_generated(name: str, method: Any, kind: str) -> bool:
    function = _function(method)
    if not isinstance(function, FunctionType):
        return False
    if kind == _NAMED_TUPLE:
        home = str(function.__globals__.get("__name__"))
        return name in _BY_NAMEDTUPLE and home.startswith(("collections", "namedtuple_"))
    if kind != DATACLASS or name not in _BY_DATACLASS:
        return False
    inmost: Any = inspect.unwrap(function)
    code: CodeType = inmost.__code__
    if code.co_filename == "<string>":
        return "__create_fn__" in getattr(code, "co_qualname", "__create_fn__")
    return bool(inmost.__module__ == "dataclasses")


def without_slots(content: dict[str, Any]) -> dict[str, Any]:
    """Return what is in a class without what its `__slots__` make."""
    return {
        name: value for name, value in content.items()
        if not isinstance(value, MemberDescriptorType)
    }  # fmt: skip


def attributes_of_members(made: type) -> dict[str, dict[str, Any]]:
    """Return what an enum's own `__init__` or `__new__` has set in its members, by their names."""
    found = {}
    for name, member in vars(made)["_member_map_"].items():
        attributes = {key: of for key, of in vars(member).items() if key not in _OF_ENUM}
        if attributes:
            found[name] = attributes
    return found


def portable_state(content: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what is in a class from another Python, without what is generated here."""
    if kind == ENUM:
        return {name: value for name, value in content.items() if _is_users(name, value)}
    names: tuple[str, ...] = ()
    if kind == _NAMED_TUPLE:
        names = _BY_NAMEDTUPLE
    elif kind == DATACLASS:
        names = _BY_DATACLASS
    kept = {name: value for name, value in content.items() if not _is_empty(name, value, names)}
    if kind == DATACLASS and kept.get("__hash__", 0) is None and content[_PARAMS].eq:
        del kept["__hash__"]
    return kept


_PARAMS, _FIELDS = "__dataclass_params__", "__dataclass_fields__"


def _is_empty(name: str, method: Any, generated: tuple[str, ...]) -> bool:
    """Say whether a method came as the empty function that stands for a generated one."""
    function = _function(method)
    return (
        name in generated
        and isinstance(function, FunctionType)
        and function.__code__.co_filename == "<generated>"
    )


def _is_users(name: str, value: Any) -> bool:
    """Say whether something in an enum is the user's own, not the enum module's."""
    value = value.fget if isinstance(value, property) else _function(value)
    if isinstance(value, FunctionType):
        return value.__module__ != "enum"
    return not name.startswith("_") or name in ("__doc__", "__module__", "__qualname__")


def generate(made: type, kind: str, content: dict[str, Any]) -> None:
    """Write the generated methods of a class that has everything else."""
    if kind == _NAMED_TUPLE:
        model: Any = collections.namedtuple(  # type: ignore[misc]
            made.__name__, content["_fields"], rename=True,
            defaults=[*content["_field_defaults"].values()],
            module=made.__module__,
        )  # fmt: skip
        for name in _BY_NAMEDTUPLE:
            if name in vars(model) and _is_empty(name, content.get(name, vars(model)), (name,)):
                setattr(made, name, vars(model)[name])
    elif kind == DATACLASS:
        _generate_dataclass(made, content)


def _generate_dataclass(made: type, content: dict[str, Any]) -> None:
    params, fields = content[_PARAMS], content[_FIELDS]
    annotations = dict(content.get("__annotations__", {}))
    slots = {name: of for name, of in vars(made).items() if isinstance(of, MemberDescriptorType)}
    marked: dict[str, Any] = {}
    for name, annotation in annotations.items():
        kind = fields[name]._field_type.name if name in fields else ""
        if kind == "_FIELD":
            setattr(made, name, fields[name])
        # Written as texts they mean nothing without the module that they were written in.
        marked[name] = {
            "_FIELD_CLASSVAR": typing.ClassVar, "_FIELD_INITVAR": dataclasses.InitVar,
        }.get(kind, annotation)  # fmt: skip
    made.__annotations__ = marked
    try:
        dataclasses.dataclass(
            init=params.init, repr=params.repr, eq=params.eq, order=params.order,
            unsafe_hash=params.unsafe_hash, frozen=params.frozen,
        )(made)  # fmt: skip
    finally:
        made.__annotations__ = annotations
    for name, descriptor in slots.items():
        type.__setattr__(made, name, descriptor)
    setattr(made, _PARAMS, params)


def reduce_part(value: Any) -> Any:
    """Return how a part of a dataclass is pickled, which versions know differently; or None."""
    kind = type(value)
    if kind is dataclasses.Field or kind is _Params:
        slots = {name: getattr(value, name) for name in kind.__slots__ if hasattr(value, name)}
        return make_part, (kind.__name__, slots)
    if kind in (dataclasses._MISSING_TYPE, dataclasses._KW_ONLY_TYPE):  # type: ignore[attr-defined]
        return _SENTINELS[kind]
    if kind is MethodType:
        name, of = value.__func__.__name__, type(value.__self__)
        if _is_generated(name, vars(of).get(name), kind_of(of)):
            return getattr, (value.__self__, name)
    if kind is FunctionType and value is _REPLACE:
        return replace_method, ()
    return None


def replace_method() -> Any:
    """Return what dataclasses have as `__replace__`; before 3.13, something to leave out."""
    return _REPLACE or FunctionType(compile("", "<generated>", "exec"), {})


def make_part(kind: str, slots: dict[str, Any]) -> object:
    """Return a Field or the parameters of a dataclass, as this version has them."""
    made_of: Any = dataclasses.Field if kind == "Field" else _Params
    part = made_of.__new__(made_of)
    for name in made_of.__slots__:
        if name in slots or name in _DEFAULTS:
            setattr(part, name, slots.get(name, _DEFAULTS.get(name)))
    return part
