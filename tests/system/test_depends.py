"""Code runs on a node as it runs at home, whatever kind it is and whatever it depends on."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "shapes.py": """
        import kit
        from kit.inner import SCALE
        class Circle:
            def __init__(self, radius): self.radius = radius
            def area(self): return kit.square(self.radius) * SCALE
        def where():
            import late
            return __file__, kit.__file__, late.__file__
        """,
    "kit/__init__.py": """
        from . import inner
        def square(n): return n * n
        """,
    "kit/inner.py": "SCALE = 3\n",
    "kit/unused.py": "raise RuntimeError('imported without being asked for')\n",
    "late.py": "",
}


def beside(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))


Run = Callable[[str], str]


@pytest.fixture
def run_program(tmp_path: Path, shared_node: object) -> Run:
    """Run source text as a program and return its output; its `Cluster` uses a node that does
    not find this machine's modules."""
    node = f"nodes=[({shared_node.host!r}, {shared_node.port})]"
    # Lines go out in one piece: dispy may log meanwhile.
    start = "import sys\nsys.stdout.reconfigure(line_buffering=True, write_through=False)\n"
    start += f"import functools, dispy\nCluster = functools.partial(dispy.JobCluster, {node})\n"

    def run(source: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(start + textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def result_of(run_program: Run, source: str) -> str:
    """Return what a program prints behind "result "."""
    output = run_program(source)
    results = [line for line in output.splitlines() if line.startswith("result ")]
    assert results, output
    return results[-1].removeprefix("result ")


def test_modules_beside_the_program_come_along_with_all_they_import(run_program, tmp_path) -> None:
    beside(tmp_path, FILES)
    told = result_of(
        run_program,
        """
        import shapes
        def compute(circle):
            places = shapes.where()
            return circle.area(), shapes.Circle(1).area(), all(
                ".dispy-modules" in place for place in places)
        if __name__ == "__main__":
            cluster = Cluster(compute, loglevel=10)
            print("result", cluster.submit(shapes.Circle(2)).get(timeout=30))
        """,
    )
    assert told == "(12, 3, True)"


def test_a_function_of_a_module_runs_in_that_module(run_program, tmp_path) -> None:
    beside(
        tmp_path,
        {
            "work.py": """
                from kit import square
                total = 0
                class Point:
                    def __init__(self, x): self.x = x
                def add(point):
                    global total
                    assert isinstance(point, Point)
                    total += square(point.x)
                    return Point(total)
            """,
            **FILES,
        },
    )
    told = result_of(
        run_program,
        """
        import work
        if __name__ == "__main__":
            cluster = Cluster(work.add)
            got = [cluster.submit(work.Point(n)).get(timeout=30) for n in (2, 3)]
            print("result", [type(point) is work.Point for point in got], got[1].x)
        """,
    )
    assert told == "[True, True] 9"


def test_modules_that_come_along_are_named_in_the_debug_log(run_program, tmp_path) -> None:
    beside(tmp_path, FILES)
    output = run_program(
        "import shapes\ndef compute(): return shapes.where()\n"
        "if __name__ == '__main__': Cluster(compute, loglevel=10).submit().get()\n"
    )
    assert "kit/__init__.py, kit/inner.py, late.py, shapes.py" in output


def test_classes_of_the_program_pickle_by_name_on_the_node(run_program) -> None:
    told = result_of(
        run_program,
        """
        class Point:
            def __init__(self, x): self.x = x
        class Unmentioned:
            pass
        def compute(given):
            import pickle, sys
            copy = pickle.loads(pickle.dumps(Point(3)))
            main = sys.modules["__main__"]
            return __name__, type(copy) is Point is main.Point, Unmentioned, type(given)
        if __name__ == "__main__":
            cluster = Cluster(compute, depends=[Point, Unmentioned()])
            name, same, other, kind = cluster.submit(Point(1)).get(timeout=30)
            print("result", name, same, other is Unmentioned, kind is Point)
        """,
    )
    assert told == "__main__ True True True"


def test_depends_are_found_by_name_and_init_depends_is_called_first(run_program) -> None:
    told = result_of(
        run_program,
        """
        import functools
        def init_depends():
            global table
            import json as table
        def double(n):
            return n * 2, table.__name__
        class Adder:
            def __init__(self, by): self.by = by
        def product(n, m=5): return n * m
        def dispatch(name, n):
            return globals()[name](n)
        if __name__ == "__main__":
            depends = [init_depends, double, Adder(3), functools.partial(product, 3)]
            cluster = Cluster(dispatch, depends=depends)
            print("result", cluster.submit("double", 4).get(timeout=30),
                cluster.submit("Adder", 4).get().by, cluster.submit("product", 4).get())
        """,
    )
    assert told == "(8, 'json') 4 20"


def test_code_of_one_job_is_gone_after_it(run_program, tmp_path) -> None:
    beside(tmp_path, {"tools.py": "def tool(n): return n + 100\n"})
    told = result_of(
        run_program,
        """
        def square(n): return n * n
        class Point:
            def __init__(self, x): self.x = x
            def double(self): return self.x * 2
        def dispatch(name, n):
            if name not in globals():
                import sys
                return name, "tools" in sys.modules
            return globals()[name](n)
        if __name__ == "__main__":
            def tool():
                import tools
                return tools.tool
            cluster = Cluster(dispatch)
            one = cluster.submit("square", 5, dispy_job_depends=[square]).get(timeout=30)
            two = cluster.submit("tool", 5, dispy_job_depends=[tool()]).get(timeout=30)
            pairs = [cluster.submit("Point", n, dispy_job_depends=[Point]) for n in range(3)]
            three = [type(job.get(timeout=30)) is Point for job in pairs]
            gone = [cluster.submit(n, 5) for n in ("square", "tool", "Point") * 3]
            left = {job.get(timeout=30) for job in gone}
            print("result", one, two, all(three), sorted(left))
        """,
    )
    assert told == "25 105 True [('Point', False), ('square', False), ('tool', False)]"


def test_a_whole_package_is_sent_with_its_data(run_program, tmp_path) -> None:
    beside(tmp_path, {"atlas/__init__.py": "", "atlas/data/towns.txt": "Oslo"} | {})
    told = result_of(
        run_program,
        """
        import atlas
        def compute():
            import os, atlas
            with open(os.path.join(os.path.dirname(atlas.__file__), "data", "towns.txt")) as file:
                return file.read()
        if __name__ == "__main__":
            cluster = Cluster(compute, depends=[atlas])
            print("result", cluster.submit().get(timeout=30))
        """,
    )
    assert told == "Oslo"


def test_every_kind_of_callable_is_a_computation(run_program) -> None:
    told = result_of(
        run_program,
        """
        import abc, asyncio, collections, dataclasses, enum, functools, typing
        class Color(enum.Enum):
            RED = 1
        @dataclasses.dataclass
        class Item:
            n: int
            def plus(self, m): return self.n + m
            @classmethod
            def make(cls, n): return cls(n)
            @staticmethod
            def half(n): return n / 2
        class Pair(typing.NamedTuple):
            a: int
            b: int
        class Base(abc.ABC):
            @abc.abstractmethod
            def value(self): ...
        class Derived(Base):
            def value(self): return 7
            def __call__(self, n): return type(super().__thisclass__).__name__, n
        def twice(function):
            @functools.wraps(function)
            def wrapper(*arguments): return function(*arguments), function(*arguments)
            return wrapper
        @twice
        def decorated(n): return n + 1
        @functools.singledispatch
        def kind(value): return "other"
        @kind.register
        def _(value: int): return "int"
        def odd(n): return False if n == 0 else even(n - 1)
        def even(n): return True if n == 0 else odd(n - 1)
        def numbers(n): yield from range(n)
        def uses_generator(n): return list(numbers(n))
        async def later(n):
            await asyncio.sleep(0)
            return n
        def closure(k):
            def inner(n): return n + k
            return inner
        def add(a, b): return a + b
        def returns(n): return Color.RED, Item(n), Pair(n, n), Derived().value()
        if __name__ == "__main__":
            item = Item(5)
            calls = [
                (lambda n: n * 10, 1), (closure(5), 1), (functools.partial(add, 5), 1),
                (Derived(), 1), (item.plus, 1), (Item.make, 1), (Item.half, 1), (decorated, 1),
                (kind, 1), (kind, "x"), (odd, 3), (uses_generator, 3), (later, 4), (Item, 9),
            ]
            jobs = [Cluster(f).submit(n) for f, n in calls]
            old = Cluster(Item.plus).submit(item, 2)
            bound = Cluster(item.plus).submit(Item(1), 2)
            color, got, pair, seven = Cluster(returns).submit(2).get(timeout=60)
            same = color is Color.RED, type(got) is Item, type(pair) is Pair, seven
            print("result", [job.get(timeout=60) for job in jobs], old.get(), bound.get(), same)
        """,
    )
    assert told == (
        "[10, 6, 6, ('ABCMeta', 1), 6, Item(n=1), 0.5, (2, 2), 'int', 'other', True, [0, 1, 2], "
        "4, Item(n=9)] 7 3 (True, True, True, 7)"
    )


def test_functions_of_a_notebook_cell_are_computations(run_program) -> None:
    cell = (
        "import json\nfactor = 3\nclass Point: pass\n"
        "def compute(n): return json.dumps(n * factor), Point()\n"
    )
    told = result_of(
        run_program,
        f"""
        import linecache, sys
        TEXT = {cell!r}
        if __name__ == "__main__":
            linecache.cache["<cell 1>"] = (len(TEXT), None, TEXT.splitlines(True), "<cell 1>")
            exec(compile(TEXT, "<cell 1>", "exec"), vars(sys.modules["__main__"]))
            got = Cluster(compute).submit(2).get(timeout=30)
            print("result", got[0], type(got[1]) is Point)
        """,
    )
    assert told == "6 True"


def test_a_module_that_a_node_lacks_is_named_with_what_to_do(run_program, tmp_path) -> None:
    beside(tmp_path, {"plain.py": "", "hidden.py": "", "other/foreign.py": "import hidden\n"})
    output = run_program(
        textwrap.dedent("""
        import importlib
        def of_own():
            return importlib.import_module("hidden")
        def of_nobody():
            import nowhere_at_all
        def told(job):
            job.wait(30)
            return job.exception.splitlines()[-1]
        if __name__ == "__main__":
            for function in (of_own, of_nobody):
                print("result", told(Cluster(function).submit()))
        """)
    )
    own, nobody = [line for line in output.splitlines() if line.startswith("result")]
    assert " has no module 'hidden'. Here it is " in own
    assert own.endswith("hidden.py: import it and pass it to the cluster, depends=[hidden]")
    assert nobody.endswith("has no module 'nowhere_at_all', and it is not found here either")


def test_a_module_that_is_missing_as_a_computation_loads_is_told_with_its_node(
    run_program,
) -> None:
    output = run_program(
        textwrap.dedent("""
        def init_depends():
            import installed_elsewhere
        def compute(): return 1
        if __name__ == "__main__":
            cluster = Cluster(compute, depends=[init_depends])
            job = cluster.submit()
            job.wait(3)
            print("result", job.why())
            cluster.close(timeout=0, terminate=True)
        """)
    )
    assert "has no module 'installed_elsewhere', and it is not found here either" in output
    assert "loading.py" not in output, "frames of ours are nothing to a user"


def test_a_module_that_opens_a_cluster_as_it_is_imported_is_told_so(
    run_program, tmp_path, shared_node
) -> None:
    text = (
        "import dispy\ndef compute(n): return n\ncluster = dispy.JobCluster(compute, nodes=NODES)"
    )
    nodes = [(shared_node.host, shared_node.port)]
    beside(tmp_path, {"eager.py": text.replace("NODES", repr(nodes))})
    output = run_program(
        "import eager\n"
        "if __name__ == '__main__':\n"
        "    job = eager.cluster.submit(1)\n    job.wait(3)\n    print(job.why())\n"
        "    eager.cluster.close(timeout=0, terminate=True)\n"
    )
    assert "opens a cluster at once, on the node too. Open it below" in output


def test_what_is_no_code_and_what_cannot_be_sent_is_refused_at_once(run_program) -> None:
    told = result_of(
        run_program,
        """
        import threading
        lock = threading.Lock()
        def compute(): pass
        def helper(): return lock
        def numbers(): yield 1
        def refusal(call, *arguments, **options):
            try:
                call(*arguments, **options)
            except dispy.DispyError as error:
                return str(error)
        if __name__ == "__main__":
            told = [
                refusal(Cluster, compute, depends=[5]),
                refusal(Cluster, compute, depends=compute),
                refusal(Cluster, compute, depends=[helper]),
                refusal(Cluster, numbers),
                refusal(Cluster(compute).submit, dispy_job_depends=[3]),
            ]
            print("result", " | ".join(told))
        """,
    )
    none, callable_, lock, generator, of_job = told.split(" | ")
    assert none.startswith("depends: 5 is neither a file nor code")
    assert callable_.startswith("depends is a list of files and of code, not")
    assert "cannot be sent to a node: helper with its global 'lock' is a lock" in lock
    assert generator.startswith("numbers is a generator function")
    assert of_job.startswith("dispy_job_depends: 3 is neither a file nor code")
