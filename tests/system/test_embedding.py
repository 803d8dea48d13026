"""dispy inside other programs: notebooks, asyncio, gevent, forks; it patches none of them."""

import queue
import re
import time
from collections.abc import Iterator

import pytest
from system.conftest import DEADLINE

# -- a notebook's kernel


class Notebook:
    """A real kernel; `run` is one cell."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(startup_timeout=DEADLINE)

    def run(self, cell: str, interrupt_at: str | None = None) -> str:
        """Return what a cell prints; `interrupt_at` that text in it, the kernel is interrupted."""
        self.client.execute(cell)
        text = ""
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=DEADLINE)
            except queue.Empty:
                pytest.fail(f"the cell did not end: {text}")
            content = message["content"]
            text += content.get("text", "") + "\n".join(content.get("traceback", []))
            if interrupt_at is not None and interrupt_at in text:
                interrupt_at = None
                self.manager.interrupt_kernel()
            if content.get("execution_state") == "idle":
                return text

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture
def notebook(nothing_left: None) -> Iterator[Notebook]:
    made = Notebook()
    yield made
    if made.manager.is_alive():
        made.manager.shutdown_kernel(now=True)


def test_a_notebook_runs_what_its_cells_define(notebook: Notebook) -> None:
    notebook.run("import dispy\ndef compute(n):\n    return n + 1")
    assert "local node" in notebook.run("cluster = dispy.JobCluster(compute)")
    assert "42" in notebook.run("print(cluster.submit(41)())")
    # redefined, and submitted again
    notebook.run("def compute(n):\n    return n + helper\nhelper = 100")
    assert "141" in notebook.run("print(dispy.JobCluster(compute).submit(41)())")
    notebook.run("helper = 200")
    assert "241" in notebook.run("print(dispy.JobCluster(compute).submit(41)())")
    # classes of a cell, as arguments and results
    notebook.run(
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "def move(point, by): return Point(point.x + by)\n"
        "moving = dispy.JobCluster(move)"
    )
    assert "True 7" in notebook.run(
        "p = moving.submit(Point(3), 4)(); print(type(p) is Point, p.x)"
    )
    assert "[1, 2, 3]" in notebook.run("print(list(cluster.map(range(3))))")
    shown = notebook.run("def bad(n): return 1 / n\ndispy.JobCluster(bad).submit(0).get()")
    assert "ZeroDivisionError" in shown
    assert "RemoteTraceback" in shown
    # the kernel runs an event loop of its own
    assert "5" in notebook.run("print(await cluster.submit(4))")
    # interrupted, it goes on
    notebook.run("import time\ndef sleep():\n    import time\n    time.sleep(3600)")
    shown = notebook.run(
        "job = dispy.JobCluster(sleep).submit()\n"
        "while job.status == dispy.DispyJob.Created: time.sleep(0.01)\n"
        "print('start' + 'ed', flush=True); job()",
        interrupt_at="started",
    )
    assert "KeyboardInterrupt" in shown
    assert "8" in notebook.run("print(cluster.submit(7)())")
    # ended with a job that would run for ever, it leaves nothing (the fixture looks)
    notebook.end()


# -- a program patched by gevent

PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent, time, threading

def double(n):
    import time
    time.sleep(0.2 if n < 0 else 0)
    return 2 * n

if __name__ == "__main__":
    import dispy
    def say(*words):
        line = " ".join(map(str, words))
        print(f"said: {line}\\n", end="", flush=True)  # whole: dispy may log meanwhile
    told = []
    cluster = dispy.JobCluster(double, callback=lambda job: told.append(job.result))
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.005)
    ticking = gevent.spawn(tick)
    def one(n):
        return cluster.submit(n)()
    greenlets = [gevent.spawn(one, n) for n in [*range(50), -1, -2]]
    gevent.joinall(greenlets, raise_error=True)
    say([g.value for g in greenlets] == [2 * n for n in [*range(50), -1, -2]])
    say(len(ticks) > 10, cluster.wait(), sorted(told) == sorted(g.value for g in greenlets))
    threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    say(list(cluster.map(range(10))) == [2 * n for n in range(10)])
    say(cluster.submit(-3).wait(0.001), cluster.wait(20), {job.done for job in
          dispy.as_completed([cluster.submit(n) for n in range(9)])} == {True})
    try:
        with gevent.Timeout(0.01):
            cluster.submit(-4)()
    except gevent.Timeout:
        say("timed out")
    jobs = [cluster.submit(-5)]
"""


def test_a_program_patched_by_gevent_waits_with_greenlets(run_program) -> None:
    ran = run_program(PATCHED)
    assert ran.end() == 0, ran.output
    assert re.findall("^said: (.*)$", ran.output, re.MULTILINE) == [
        "True", "True True True", "True", "False True True", "timed out",
    ], ran.output  # fmt: skip


def test_an_exception_ends_a_patched_program_at_once(run_program) -> None:
    source = PATCHED.split("    ticks = []")[0] + "    cluster.submit(-1)\n    1 / 0\n"
    ran = run_program(source)
    assert ran.end() == 1, ran.output


PLAIN = """
import sys, threading, time, socket, os, signal, multiprocessing

def double(n):
    return 2 * n

def in_child(n):
    import dispy
    with dispy.JobCluster(double) as cluster:
        return cluster.submit(n)()

if __name__ == "__main__":
    before = (threading.Event, threading.Lock, socket.socket, time.sleep, os.fork, os.waitpid,
              threading.Thread.start, signal.signal, signal.getsignal(signal.SIGINT),
              signal.getsignal(signal.SIGCHLD), sys.excepthook)
"""


def plain(body: str) -> str:
    return PLAIN + "".join(f"    {line}\n" for line in body.strip().splitlines())


def test_the_embedding_program_is_not_patched(run_program) -> None:
    body = """
import dispy
print("gevent" in sys.modules)
cluster = dispy.JobCluster(double, callback=print)
job = cluster.submit(3)
assert job() == 6 and cluster.wait()
print(before == (threading.Event, threading.Lock, socket.socket, time.sleep, os.fork, os.waitpid,
      threading.Thread.start, signal.signal, signal.getsignal(signal.SIGINT),
      signal.getsignal(signal.SIGCHLD), sys.excepthook))
from gevent import monkey
print(any(monkey.is_module_patched(name) for name in ("socket", "threading", "time", "os")))
"""
    ran = run_program(plain(body))
    assert ran.end() == 0, ran.output
    lines = ran.output.splitlines()
    assert [line for line in lines if line in ("True", "False")] == ["False", "True", "False"]


def test_a_program_may_use_gevent_of_its_own_later(run_program) -> None:
    body = """
import dispy
cluster = dispy.JobCluster(double)
print(cluster.submit(1)())
import gevent
print([g.get() for g in [gevent.spawn(lambda n: cluster.submit(n).get(), n) for n in range(3)]])
"""
    ran = run_program(plain(body))
    assert ran.end() == 0, ran.output
    assert ran.output.splitlines()[-2:] == ["2", "[0, 2, 4]"]


def test_children_of_every_kind_have_clusters_of_their_own(run_program) -> None:
    body = """
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(in_child, [1]))
import dispy
cluster = dispy.JobCluster(double)
held = cluster.submit(1)
print(held())
for method in ("fork", "spawn"):
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(pool.map(in_child, [1, 2]))
print(cluster.submit(21)())
"""
    ran = run_program(plain(body))
    assert ran.end() == 0, ran.output
    told = [line for line in ran.output.splitlines() if re.fullmatch(r"[\[\]\d, ]+", line)]
    assert told == ["[2]", "2", "[2, 4]", "[2, 4]", "42"], ran.output


def test_a_forked_child_is_told_that_its_parents_jobs_are_not_its_own(run_program) -> None:
    body = """
import dispy
def hold(n):
    import time
    time.sleep(n)
    return n
cluster = dispy.JobCluster(hold)
cluster.submit(0)()
job = cluster.submit(0.5)
child = os.fork()
if not child:
    for call in (job, job.get, cluster.submit, cluster.wait, cluster.close,
                 lambda: cluster.cancel(job), lambda: list(dispy.as_completed([job]))):
        try:
            call()
        except dispy.DispyError as error:
            assert f"belongs to process {os.getppid()}" in str(error), error
        else:
            print("no error", call)
    sys.exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(job())
"""
    ran = run_program(plain(body))
    assert ran.end() == 0, ran.output
    assert ran.output.splitlines()[1:] == ["9", "0.5"]


def test_a_child_that_lives_on_does_not_keep_the_parents_local_node(run_program) -> None:
    body = """
import dispy
cluster = dispy.JobCluster(double)
cluster.submit(0)()
if not os.fork():
    from dispy.system.processes import children
    (local,) = [pid for pid in children(os.getppid()) if pid != os.getpid()]
    os.kill(os.getppid(), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and os.path.exists(f"/proc/{local}/exe"):
        time.sleep(0.01)
    if os.path.exists(f"/proc/{local}/exe"):
        os._exit(1)
    print("ended", flush=True)
    os._exit(0)
time.sleep(60)
"""
    ran = run_program(plain(body))
    deadline = time.monotonic() + DEADLINE
    while "ended" not in ran.line():
        assert time.monotonic() < deadline, ran.output


def test_two_threads_may_open_the_first_clusters(run_program) -> None:
    body = """
import dispy
results = []
def one(n):
    results.append(dispy.JobCluster(double).submit(n)())
threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sorted(results))
"""
    ran = run_program(plain(body))
    assert ran.end() == 0, ran.output
    assert "[0, 2, 4, 6]" in ran.output
    assert ran.output.count("started a local node") == 1


def test_a_cluster_may_be_opened_in_a_thread_beside_asyncio(run_program) -> None:
    body = """
import asyncio, dispy
async def main():
    loop = asyncio.get_running_loop()
    cluster = await loop.run_in_executor(None, dispy.JobCluster, double)
    here = dispy.JobCluster(double)
    results = await asyncio.gather(*[c.submit(n) for c in (cluster, here) for n in range(20)])
    print(results == [2 * n for n in range(20)] * 2)
    await loop.run_in_executor(None, cluster.close)
asyncio.run(main())
"""
    ran = run_program(plain(body))
    assert ran.end() == 0, ran.output
    assert "True" in ran.output
