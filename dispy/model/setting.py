"""What a setting is: its kind, range and words, and how a text becomes its value. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dispy.model.errors import DispyError
from dispy.model.limits import check_environment
from dispy.model.sizes import read_bytes

_TRUTH = {
    "1": True, "yes": True, "true": True, "on": True,
    "0": False, "no": False, "false": False, "off": False,
}  # fmt: skip
_KINDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "yes or no", dict: "a table",
}  # fmt: skip
_ANY = float("inf")


@dataclass(frozen=True, slots=True)
class Value:
    """What a setting is, and who said so ("DISPY_CPUS"); `value` None: nobody did."""

    value: Any = field(repr=False)  # it may be a secret
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting; its place in the configuration file is `room`.`name`."""

    room: str  # whose it is: "node", "client", "scheduler" or "operator"
    name: str  # the keyword argument, where there is one
    kind: type[Any]  # int, float, str, bool or dict
    help: str  # what an option's text says
    default: Any = None  # None: not said, which its reader understands
    unit: str = ""
    low: float = -_ANY
    high: float = _ANY
    words: Mapping[str, Any] = field(default_factory=dict)  # names of values ("debug": 10)
    option: str | None = None
    aliases: tuple[str, ...] = ()  # of the option, in dispy 4
    argument: bool = False  # of JobCluster
    variable: str | None = None
    in_file: bool = True
    hidden: bool = False  # no error may show what it is

    @property
    def key(self) -> str:
        """Its full name, which no other setting has."""
        return f"{self.room}.{self.name}"

    @property
    def default_text(self) -> str:
        """The default as one would write it; empty where there is none."""
        for word, value in self.words.items():
            if value == self.default:
                return word
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        if self.unit == "bytes" and self.default:
            return _size_text(self.default)
        return "" if self.default is None else str(self.default)

    def read(self, text: str, source: str) -> Any:
        """Return the value of `text`, which came from `source`; raises DispyError."""
        word = text.strip().lower()
        if self.kind is bool:
            if word not in _TRUTH:
                raise self._refusal(text, source)
            return _TRUTH[word]
        if word in self.words:
            return self.words[word]
        try:
            value = read_bytes(text) if self.unit == "bytes" else self.kind(text)
        except ValueError:
            raise self._refusal(text, source) from None
        return self.check(value, source)

    def check(self, value: Any, source: str) -> Any:
        """Return a value that a program or a file gave, if it may be; raises DispyError."""
        if isinstance(value, str) and value.lower() in self.words:
            return self.words[value.lower()]
        if isinstance(value, str) and self.unit == "bytes":
            return self.read(value, source)
        if self.unit == "bytes" and isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.kind is dict:
            return check_environment(value, source)
        if type(value) is int and (self.kind is float or (self.kind is bool and value in (0, 1))):
            value = self.kind(value)
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            raise self._refusal(value, source)
        if self.kind is str and self.words:
            raise self._refusal(value, source)
        if self.kind in (int, float) and not self.low <= value <= self.high:
            raise DispyError(f"{source}: {value:g} is not {self.range_text}")
        return value

    @property
    def range_text(self) -> str:
        """The numbers that it may be ("1 to 1000 seconds")."""
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip()

    def _refusal(self, value: object, source: str) -> DispyError:
        if self.hidden:
            return DispyError(f"{source}: what was given is not {_KINDS[self.kind]}")
        if self.kind is str and self.words:
            return DispyError(f"{source}: {value!r} is not one of {', '.join(self.words)}")
        kind = _KINDS[self.kind] + (f" of {self.unit}" if self.unit else "")
        others = f", nor one of {', '.join(self.words)}" if self.words else ""
        return DispyError(f"{source}: {value!r} is not {kind}{others}")


def _size_text(size: int) -> str:
    """Return a number of bytes as `read_bytes` reads it, in the largest unit that divides it."""
    power = 0
    while power < 4 and not size & 1023:
        size, power = size >> 10, power + 1
    return f"{size}{' KMGT'[power]}".replace(" ", "")
