"""A program whose jobs run on nodes with other Pythons: each kind of code, everywhere.

    kinds_of_code.py HOST...

Runs every kind on each node and in this very process, compares, and prints a line for each
node: its Python, and what was wrong there. With COMPUTATIONS in the environment it opens clusters
of other things than a plain function instead.
"""

import abc
import array
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import ipaddress
import operator
import os
import pathlib
import re
import signal
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, InitVar, dataclass, field
from queue import Queue
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import beside

import dispy

base = 10
calls = 0
KINDS: dict[str, Callable[[], Any]] = {}


def kind(function):
    KINDS[function.__name__] = function
    return function


# -- functions


def helper(x):
    return x + base


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*arguments, **keywords):
        return "wrapped", function(*arguments, **keywords)

    return wrapper


@wrapped
def decorated(x: "int | None" = None, *rest: int, last: int = 5) -> int:
    return x + sum(rest) + last


def adder(n):
    def add(x):
        """Text whose lines
        keep their indentation."""
        return (
            x + n,
            inspect.cleandoc(add.__doc__),
            """
    as
  this""",
        )

    return add


def counter():
    n = 0

    def up():
        nonlocal n
        n += 1
        return n

    return up, lambda: n


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


square, cube = (lambda x: x**2), (lambda x: x**3)
é = lambda ü: (  # noqa: E731
    "ä" + ü)  # fmt: skip


@kind
def globals_and_builtins():
    global calls
    calls += 1
    return helper(len("abc")), calls, __name__


@kind
def decorators_and_defaults():
    return decorated(1), decorated(1, 2, last=3), decorated.__name__


@kind
def closures():
    up, seen = counter()
    return adder(5)(1), up(), up(), seen()


@kind
def recursion():
    return even(10), odd(10)


@kind
def lambdas():
    return square(3), cube(3), é("ö"), (lambda a, b=base: a * b)(2)


@kind
def comprehensions():
    n = 3
    pairs = {k: v for k, v in zip("ab", (n, base), strict=True)}
    return [i * n + base for i in range(3)], pairs, {x for x in (n, n)}, sum(y for y in (n, 1))


@kind
def generators():
    def numbers(n) -> Iterator[int]:
        sent = yield 0
        yield from (i * base + sent for i in range(n))

    generator = numbers(2)
    return next(generator), generator.send(1), list(generator)


@kind
def matching_and_exceptions():
    def tell(what):
        match what:
            case [a, b]:
                return a + b
            case {"key": value}:
                return value
        try:
            raise ValueError(what)
        except ValueError as error:
            return f"{error!s:>4} {what!r}"
        finally:
            calls_to_finally.append(what)

    calls_to_finally: list[Any] = []
    return tell([1, 2]), tell({"key": 5}), tell("z"), calls_to_finally


@kind
def context_managers():
    @contextlib.contextmanager
    def entered(n):
        yield n
        left.append(n)

    left: list[int] = []
    with entered(1) as one, entered(2) as two:
        return one, two, left


@kind
def asynchronous():
    async def wait(n):
        await asyncio.sleep(0)
        return n

    async def both():
        return await asyncio.gather(wait(1), wait(2))

    return asyncio.run(both())


@kind
def partials():
    return functools.partial(decorated, 1, last=2)(), operator.itemgetter(1)("ab")


@kind
def module_beside():
    return beside.triple(4), beside.Brick(2).tripled()


@kind
def imports_inside():
    import json
    from os import path

    return json.dumps({"a": [1]}), path.join("a", "b")


@kind
def numbers_and_texts():
    return 0.1 + 0.2, -0.0, 1e300 * 1e10, 2**100, 1j, b"\xff", "\udc80\U0001f600", (), ..., None


# -- classes


class Stack:
    made = 0
    __slots__ = ("__items",)

    def __init__(self, *items):
        self.__items = list(items)

    def push(self, item):
        self.__items.append(item)
        return self

    @property
    def top(self):
        return self.__items[-1]

    @classmethod
    def of(cls, *items):
        return cls(*items)

    @staticmethod
    def twice(x):
        return x * 2


class Loud(Stack):
    def push(self, item):
        return super().push(str(item).upper())

    def same(self):
        return type(self) is Loud and isinstance(self, __class__)


@kind
def classes():
    loud = Loud.of(1)
    return loud.push("a").top, loud.same(), Stack.twice(4), Stack.made, Stack(1, 2).top


Stack.made = 7  # not what the source text says


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


T = TypeVar("T")


class Box(Generic[T]):
    def __init__(self, item: T):
        self.item = item

    def open(self) -> T:
        return self.item


@kind
def abstract_and_generic():
    try:
        Shape()
    except TypeError:
        return Square(3).area(), Box[int](4).open()


@dataclass
class Point:
    x: int
    y: int = 2
    tags: list = field(default_factory=list)
    origin: ClassVar[int] = 7

    def norm(self):
        return self.x + self.y + self.origin


@dataclass(frozen=True, order=True)
class Version:
    major: int
    minor: int = 0


@dataclass(slots=True)
class Seeded:
    a: int
    b: int = 3
    seed: InitVar[int] = 4
    _: KW_ONLY
    c: int = 9

    def __post_init__(self, seed):
        self.a += seed


@dataclass(eq=False)
class Named(Point):
    name: str = "n"

    def __repr__(self):
        return f"<{self.name}>"


@kind
def dataclasses_of_all_sorts():
    point, version = Point(1), Version(1)
    try:
        version.minor = 3
    except dataclasses.FrozenInstanceError:
        changed = False
    return (
        point, point.norm(), point == Point(1), dataclasses.asdict(point),
        dataclasses.replace(point, x=9), sorted([Version(2), version]), hash(version) ==
        hash(Version(1)), changed, Seeded(1, c=4), repr(Named(1)), Named(1).norm(),
        Named(1) == Named(1), [each.name for each in dataclasses.fields(Named)],
    )  # fmt: skip


class Color(enum.Enum):
    RED = 1
    BLUE = 2

    def is_warm(self):
        return self is Color.RED


class Planet(enum.Enum):
    EARTH = 5.97, 6.4
    MARS = 0.64, 3.4

    def __init__(self, mass, radius):
        self.mass, self._radius = mass, radius

    @property
    def density(self):
        return self.mass / self._radius**3


class Mode(enum.IntFlag):
    READ = enum.auto()
    WRITE = enum.auto()


@kind
def enums():
    both = Mode.READ | Mode.WRITE
    return (
        Color.RED, Color.RED.is_warm(), Color(2).name, list(Color), int(both), Mode.READ in both,
        Planet.MARS.density, Planet((5.97, 6.4)).name,
    )  # fmt: skip


class Pair(NamedTuple):
    x: int
    y: int = 4

    def sum(self):
        return self.x + self.y


Plain = collections.namedtuple("Plain", "a b", defaults=[1])


@kind
def named_tuples():
    return (
        Pair(1), Pair(1).sum(), Pair(1)._replace(x=3), Pair(1)._asdict(), Plain(1), repr(Plain(2)),
        Plain._make([3, 4]), Pair._fields,
    )  # fmt: skip


@kind
def classes_made_inside():
    n = 5

    class Inside(Point):
        def norm(self):
            return super().norm() + n + type(self).__name__.count("I")

    return Inside(1).norm()


# -- what is sent and what comes back


class Trouble(Exception):
    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self):
        return Trouble, (self.code,)


VALUES = {
    "own classes": [Point(1), Version(3), Seeded(5), Pair(1), Plain(3), Color.RED, beside.Brick(2)],
    "paths": [pathlib.Path("/tmp/a"), pathlib.PurePosixPath("b")],
    "times": [datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc), datetime.timedelta(3)],
    "numbers": [decimal.Decimal("1.10"), fractions.Fraction(1, 3), 1j, 2**70, float("inf"), -0.0],
    "containers": [
        {1, 2}, frozenset("ab"), collections.deque([1], 5), collections.Counter("aab"), range(2, 9),
        collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), slice(1, 2),
    ],
    "others": [
        uuid.UUID(int=5), ipaddress.ip_address("10.0.0.1"), signal.SIGINT, array.array("d", [1.5]),
        types.SimpleNamespace(a=1), re.compile("a+", re.I), ValueError("v").args, "text", b"bytes",
    ],
    "large": [b"x" * 2_000_000, bytearray(2_000_000)],
}  # fmt: skip


def run(name, *arguments):
    return KINDS[name](*arguments)


def python():
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


@kind
def python_here():
    return python()


@kind
def send_back(values):
    return values


@kind
def call_function(function, argument):
    return function(argument)


@kind
def use_large(objects):
    point, add, data, *others = objects
    return point.norm(), add(1)[0], len(data) + len(others[2])


@kind
def give_function(n):
    def given(x):
        return x * n + base, Point(x)

    return given, lambda x: x - n, Loud, helper


@kind
def fail(code):
    raise Trouble(code)


def job_on(cluster, node, *arguments):
    job = cluster.submit_node(node, *arguments)
    if not job.wait(60):
        raise TimeoutError(job.why())
    return job.get()


def check_node(cluster, node):
    """Yield what is wrong with the code that runs there."""
    for name, function in KINDS.items():
        if not function.__code__.co_argcount and function is not python_here:
            global calls
            calls = 0
            there, here = job_on(cluster, node, name), function()
            if there != here:
                yield f"{name}: {there} is not {here}"
    for name, values in VALUES.items():
        there = job_on(cluster, node, "send_back", values)
        if there != values or list(map(type, there)) != list(map(type, values)):
            yield f"{name} came back as {there}"
    n = 3
    for name, function in {
        "closure": adder(5), "lambda": lambda x: x * n + base, "partial":
        functools.partial(decorated, last=n), "bound method": Point(4).__eq__, "function": helper,
        "object": Square, "module's": beside.triple,
    }.items():  # fmt: skip
        there = job_on(cluster, node, "call_function", function, 2)
        if (there.area() if name == "object" else there) != (
            4 if name == "object" else function(2)
        ):
            yield f"a {name} as argument gave {there}"
    large = cluster.put([Point(n), adder(n), b"z" * 100_000] * 2)
    if job_on(cluster, node, "use_large", large) != (n + 9, n + 1, 200_000):
        yield "a large object that was put is another one there"
    given, lower, cls, known = job_on(cluster, node, "give_function", 6)
    if (given(2), lower(2), known(2)) != ((22, Point(2)), -4, 12) or cls is not Loud:
        yield f"functions came back as {given(2)}, {lower(2)}, {known(2)}, {cls}"
    try:
        job_on(cluster, node, "fail", 5)
        yield "nothing was raised"
    except Trouble as trouble:
        if trouble.code != 5 or "in fail" not in str(trouble.__cause__):
            yield f"{trouble!r} was raised from {trouble.__cause__}"


def nodes_of(computation, hosts):
    """Open a cluster; return it with its nodes, all of which are ready."""
    ready: Queue = Queue()

    def told(status, node, job):
        if status == dispy.DispyNode.Initialized:
            ready.put(node)

    cluster = dispy.JobCluster(computation, nodes=hosts, cluster_status=told, local_node=False)
    return cluster, [ready.get(timeout=60) for _ in hosts]


def main(hosts):
    cluster, nodes = nodes_of(run, hosts)
    for node in nodes:
        wrong = list(check_node(cluster, node))
        there = job_on(cluster, node, "python_here")
        print(f"{python()} to {there}:", "; ".join(wrong) or "all as here", flush=True)
    seen = {job_on(cluster, node, "python_here") for node in nodes}
    for name in set(cluster.map(["python_here"] * 20)) - seen:
        print("a map ran on", name)
    cluster.close()


def check_computations(hosts):
    n = 2
    for name, computation in {
        "lambda": lambda x: (x * n, base), "closure": adder(3), "bound method": Point(3, 4).__eq__,
        "partial": functools.partial(decorated, last=n), "object": Caller(4), "class": Version,
        "decorated function": decorated, "module's method": beside.Brick(3).__eq__,
    }.items():  # fmt: skip
        cluster, nodes = nodes_of(computation, hosts)
        given = [job_on(cluster, node, 2) for node in nodes]
        cluster.close()
        right = given == [computation(2)] * len(hosts)
        print(f"a {name}:", "all as here" if right else f"gave {given}", flush=True)


class Caller:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return x * self.n


if __name__ == "__main__":
    check = check_computations if "COMPUTATIONS" in os.environ else main
    check(sys.argv[1:])
