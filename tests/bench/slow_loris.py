"""What a crowd that proves nothing costs an honest program: `python -m tests.bench.slow_loris`.

Usage:
  slow_loris [--rounds=<n>] [--seconds=<s>] [--size=<n>] [--only=<crowds>]

Options:
  --rounds=<n>     how often to measure each, in turns; medians are compared [default: 5]
  --seconds=<s>    how long to measure each time [default: 4]
  --size=<n>       connections of the crowd [default: 1000]
  --only=<crowds>  only these rows, with semicolons between them

A node with a secret, a program that runs small jobs on it, and beside them a crowd in a process of
its own. "elsewhere" is the same crowd at a port that nobody serves but which takes all: what the
crowd costs the machine. Loopback; run it where nothing else runs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from docopt import docopt

ROOT = Path(__file__).parent.parent
HOST, ELSEWHERE = "127.0.0.9", "127.0.0.10"
CROWDS = {
    "none": None,
    "silent": ["--silent", "--sources=1"],
    "slow": ["--sources=1"],
    "slow, 1000 addresses": ["--sources=1000"],
    "slow, elsewhere": ["--sources=1"],
    "comes again at once": ["--sources=1", "--pause=0"],
    "guesses secrets": ["--guess"],
}
PROGRAM = """
import sys, time, json, os
import dispy

def nothing(n):
    return n

if __name__ == "__main__":
    cluster = dispy.JobCluster(nothing, nodes=[sys.argv[1]], local_node=False, loglevel=40)
    cluster.submit(0)()
    print("ready", flush=True)
    for line in sys.stdin:
        end, done = time.monotonic() + float(line), 0
        while time.monotonic() < end:
            for job in [cluster.submit(n) for n in range(1000)]:
                job()
            done += 1000
        print(done, flush=True)
    cluster.close()
"""


@contextmanager
def process(*command: str, **options: object) -> Iterator["subprocess.Popen[str]"]:
    """Run a program with pipes until the block ends."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as started:
        try:
            yield started
            assert started.stdin is not None
            started.stdin.close()  # what reads it ends now, all else below
            started.wait(2)
        except subprocess.TimeoutExpired:
            pass
        finally:
            started.terminate()


@contextmanager
def crowd(name: str, size: int) -> Iterator[None]:
    """Have a crowd about."""
    options = CROWDS[name]
    if options is None:
        yield
        return
    host = ELSEWHERE if "elsewhere" in name else HOST
    program = str(ROOT / "system" / "crowd.py")
    size = min(size, 32) if "guesses" in name else size
    with process(sys.executable, program, host, f"--size={size}", *options) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "crowded\n"
        yield


TAKER = """
import socket, sys, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
listening = socket.create_server((sys.argv[1], 51348), backlog=4096)
taken = []
print("ready", flush=True)
while True:
    taken.append(listening.accept()[0])
"""


def main() -> None:
    """Measure in turns, and print medians."""
    options = docopt(__doc__)
    names = options["--only"].split(";") if options["--only"] else list(CROWDS)
    seconds, size = float(options["--seconds"]), int(options["--size"])
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        secret = directory / "secret"
        secret.touch(0o600)
        secret.write_text(f"dispy-{'s' * 43}\n")
        environment = {**os.environ, "DISPY_SECRET_FILE": str(secret)}
        node = stack.enter_context(
            process(
                sys.executable, "-m", "dispy", "node", f"--host={HOST}", "--cpus=1",
                f"--dest_path_prefix={directory}",
                env=environment, stderr=(directory / "log").open("w"),
            )
        )  # fmt: skip
        taker = stack.enter_context(process(sys.executable, "-c", TAKER, ELSEWHERE))
        assert taker.stdout is not None
        taker.stdout.readline()
        path = directory / "program.py"
        path.write_text(PROGRAM)
        program = stack.enter_context(process(sys.executable, str(path), HOST, env=environment))
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "ready\n"
        for _ in range(int(options["--rounds"])):
            for name in names:
                with crowd(name, size):
                    before = sum(psutil.Process(node.pid).cpu_times()[:2])
                    program.stdin.write(f"{seconds}\n")
                    program.stdin.flush()
                    done = int(program.stdout.readline())
                    spent = sum(psutil.Process(node.pid).cpu_times()[:2]) - before
                rates[name].append(done / seconds)
                costs[name].append(spent / seconds)
                print(name, round(rates[name][-1]), round(spent / seconds, 3), file=sys.stderr)
    show(names, rates, costs)


def show(names: list[str], rates: dict[str, list[float]], costs: dict[str, list[float]]) -> None:
    """Print medians; ratios are to the first row."""
    base = statistics.median(rates[names[0]])
    print(f"{'crowd':24}{'jobs a second':>14}{'ratio':>8}{'node, processors':>18}")
    for name in names:
        rate = statistics.median(rates[name])
        cost = statistics.median(costs[name])
        print(f"{name:24}{rate:14,.0f}{rate / base:8.2f}{cost:18.2f}")


if __name__ == "__main__":
    main()
