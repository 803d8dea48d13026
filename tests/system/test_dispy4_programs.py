"""Programs in the manner of dispy 4.6 and of dispy 4.15 run unchanged, names and all.

Each is what a user of that time could have on disk, written for what the reference says of it,
not for this implementation. They run in the directory of their files.
"""

import pytest

CANONICAL = """
def compute(n):
    import time, socket
    time.sleep(n)
    host = socket.gethostname()
    return (host, n)

if __name__ == '__main__':
    import dispy, random
    cluster = dispy.JobCluster(compute)
    jobs = []
    for i in range(10):
        job = cluster.submit(random.uniform(0, 0.05))
        job.id = i
        jobs.append(job)
    for job in jobs:
        host, n = job()
        print('%s executed job %s at %s with %.3f' % (host, job.id, job.start_time, n))
    cluster.stats()
"""

PARTIAL_SETUP = """
import dispy, sys, functools

def setup(data_file):
    global data, algorithms
    import hashlib
    data = open(data_file).read()
    algorithms = hashlib.algorithms_guaranteed
    os.remove(data_file)
    return 0

def cleanup():
    global data, algorithms
    del data, algorithms

def compute(n):
    import hashlib
    alg = sorted(algorithms)[n % 2]
    return (alg, len(data))

if __name__ == '__main__':
    with open('data.bin', 'w') as fd:
        fd.write('x' * 1000)
    cluster = dispy.JobCluster(compute, depends=['data.bin'],
                               setup=functools.partial(setup, 'data.bin'), cleanup=cleanup)
    jobs = []
    for n in range(10):
        job = cluster.submit(n)
        job.id = n
        jobs.append(job)
    for job in jobs:
        job()
        if job.status == dispy.DispyJob.Finished:
            print('%s: %s' % (job.id, job.result[1]))
        else:
            print(job.exception)
    cluster.stats()
    cluster.close()
"""

NODE_ALLOCATE = """
import dispy

class NodeAllocate(dispy.NodeAllocate):
    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=''):
        self.depends = [data_file]
        self.setup_args = (data_file,)
        return cpus

def setup(data_file):
    global hashlib, data, file_name
    import hashlib
    data = open(data_file).read()
    file_name = data_file
    if sys.version_info.major > 2:
        data = data.encode()
    os.remove(data_file)
    return 0

def cleanup(data_file):
    global data
    del data

def compute(i):
    return hashlib.sha1(data[:i]).hexdigest(), file_name

if __name__ == '__main__':
    data_file = 'data.txt'
    with open(data_file, 'w') as fd:
        fd.write('y' * 100)
    cluster = dispy.JobCluster(compute, nodes=[NodeAllocate(host='*')], setup=setup,
                               cleanup=cleanup, loglevel=dispy.logger.DEBUG)
    jobs = [cluster.submit(i) for i in range(4)]
    for job in jobs:
        job()
        if job.status == dispy.DispyJob.Finished:
            print('digest of %s: %s' % (job.result[1], job.result[0][:8]))
        else:
            print(job.exception)
    cluster.print_status()
    cluster.close()
"""

SHARED_VARIABLES = """
import dispy

def setup():
    import multiprocessing, multiprocessing.sharedctypes
    global shvar
    lock = multiprocessing.Lock()
    shvar = multiprocessing.sharedctypes.Value('i', 1, lock=lock)
    return 0

def cleanup():
    global shvar
    del shvar

def compute():
    import random
    r = random.randint(1, 10)
    global shvar
    with shvar.get_lock():
        shvar.value += r
    return (r, shvar.value)

if __name__ == '__main__':
    cluster = dispy.JobCluster(compute, setup=setup, cleanup=cleanup)
    jobs = [cluster.submit() for _ in range(10)]
    total = 1
    for job in jobs:
        job()
        if job.status != dispy.DispyJob.Finished:
            print('job failed: %s' % job.exception)
        else:
            total += job.result[0]
    print('in step: %s' % (total == max(job.result[1] for job in jobs)))
    cluster.close()
"""

OBJECTS = """
import dispy

class C(object):
    def __init__(self, i, n):
        self.i = i
        self.n = n

    def show(self):
        print('%s: %.2f' % (self.i, self.n))

def compute(obj):
    import time
    time.sleep(obj.n)
    obj.show()
    obj.n += 1
    return obj

if __name__ == '__main__':
    cluster = dispy.JobCluster(compute, depends=[C])
    jobs = []
    for i in range(3):
        c = C(i, 0.01 * i)
        job = cluster.submit(c)
        job.id = c
        jobs.append(job)
    for job in jobs:
        job()
        print('instance %s: %s, %s' % (job.id.i, job.result.n > 1, job.stdout.strip()))
        assert type(job.result) is C
"""

PROVISIONAL = """
import dispy, threading

def compute(n):
    import random, time
    best = 0
    while True:
        best = max(best, random.random())
        if best > 0.99:
            dispy_provisional_result((dispy_node_name, best))
            return best
        time.sleep(0.001)

def job_callback(job):
    if job.status == dispy.DispyJob.ProvisionalResult:
        if job.result[1] >= 0.99:
            print('acceptable')
            for j in jobs:
                if j.status in [dispy.DispyJob.Created, dispy.DispyJob.Running,
                                dispy.DispyJob.ProvisionalResult]:
                    cluster.cancel(j)
    elif job.status in (dispy.DispyJob.Finished, dispy.DispyJob.Terminated,
                        dispy.DispyJob.Cancelled, dispy.DispyJob.Abandoned):
        with cond:
            ended.append(job.id)
            cond.notify()

if __name__ == '__main__':
    cond, ended = threading.Condition(), []
    cluster = dispy.JobCluster(compute, %s=job_callback)
    jobs = []
    for n in range(4):
        job = cluster.submit(n)
        if job is None:
            print('creating job %%s failed!' %% n)
            continue
        job.id = n
        jobs.append(job)
    cluster.wait()
    print('all ended: %%s' %% (sorted(ended) == [0, 1, 2, 3]))
"""

SCHEDULER = """
import dispy, threading, os

def compute(path):
    import hashlib, time, os
    csum = hashlib.sha1()
    with open(os.path.basename(path), 'rb') as fd:
        csum.update(fd.read())
    return csum.hexdigest()

def cluster_status(status, node, job):
    if status == dispy.DispyJob.Finished:
        print('digest of %s: %s' % (job.id, job.result[:6]))
    elif status == dispy.DispyJob.Terminated:
        print('failed for %s: %s' % (job.id, job.exception))
    elif status == dispy.DispyNode.Initialized:
        print('node %s with %s cpus available' % (bool(node.ip_addr), node.avail_cpus > 0))
    else:
        return
    with submit_queue:
        submit_queue.notify()
        if files:
            name = files.pop()
            job = cluster.submit_node(node, name, dispy_job_depends=[name])
            job.id = name
            submitted.append(job)

if __name__ == '__main__':
    submit_queue = threading.Condition()
    files, submitted = [], []
    for i in range(4):
        with open('part%d' % i, 'w') as fd:
            fd.write(str(i) * 100)
        files.append('part%d' % i)
    cluster = dispy.JobCluster(compute, cluster_status=cluster_status)
    with submit_queue:
        while len(submitted) < 4:
            submit_queue.wait(10)
    cluster.wait()
    print('files: %s' % sorted(job.id for job in submitted if job.result))
"""

DELEGATE = """
import dispy

def square(n):
    return n * n

def cube(n):
    return n ** 3

def compute(fn, *args):
    func = globals()[fn]
    return func(*args), dispy_node_name != ''

if __name__ == '__main__':
    cluster = dispy.JobCluster(compute, loglevel=dispy.logger.DEBUG)
    jobs = []
    for i, func in enumerate([square, cube, square]):
        job = cluster.submit(func.__name__, i + 2, dispy_job_depends=[func])
        job.id = func.__name__
        jobs.append(job)
    for job in jobs:
        job()
        print('%s: %s' % (job.id, job.result if job.result else job.exception))
"""

SENT_FILES = """
import dispy, os

def compute(n):
    name = str(n) + '.dat'
    with open(name, 'w') as fd:
        fd.write('result %s' % n)
    return dispy_send_file(name)

if __name__ == '__main__':
    cluster = dispy.JobCluster(compute)
    jobs = [cluster.submit(n) for n in range(3)]
    for n, job in enumerate(jobs):
        sent = job()
        with open(str(n) + '.dat') as fd:
            print(sent, fd.read())
"""

PROGRAM = """
import dispy, os

if __name__ == '__main__':
    with open('work', 'w') as fd:
        fd.write('#!/bin/sh\\necho "$1" >> "$OUT"\\n')
    os.chmod('work', 0o755)
    os.environ['OUT'] = os.path.abspath('out')
    cluster = dispy.JobCluster(os.path.abspath('work'))
    for i in range(20):
        cluster.submit(i)
"""

TWO_CLUSTERS = """
import dispy

def mapfn(doc):
    return [(word, 1) for word in doc.split()]

def reducefn(pairs):
    counts = {}
    for word, count in pairs:
        counts[word] = counts.get(word, 0) + count
    return counts

if __name__ == '__main__':
    map_cluster = dispy.JobCluster(mapfn, nodes=['*'], reentrant=True)
    reduce_cluster = dispy.JobCluster(reducefn, nodes=['*'], reentrant=True)
    jobs = [map_cluster.submit(doc) for doc in ('a b a', 'b c')]
    pairs = []
    for job in jobs:
        pairs.extend(job())
    print(sorted(reduce_cluster.submit(pairs)().items()))
    map_cluster.close()
    reduce_cluster.close()
"""

UPDATE_NODES = """
import dispy

def job_status(status, node, job):
    if status == dispy.DispyNode.Initialized:
        updated.append(cluster.submit_node(node))
    elif status == dispy.DispyJob.Finished:
        print('updated: %s, %s' % (job.result, job.stdout.decode().strip()))

if __name__ == '__main__':
    updated = []
    with open('script.py', 'w') as fd:
        fd.write('import sys\\nprint("in place")\\nsys.exit(0)\\n')
    cluster = dispy.JobCluster('script.py', cluster_status=job_status)
    import time
    while not updated:
        cluster.discover_nodes(['*'])
        time.sleep(0.1)
    cluster.wait()
"""

METHOD = """
import dispy

class Model(object):
    def __init__(self, factor):
        self.factor = factor

    def compute(self, n):
        return self.factor * n

if __name__ == '__main__':
    model = Model(3)
    cluster = dispy.JobCluster(model.compute)
    print('as dispy 4: %s' % cluster.submit(Model(5), 2)())
    print('as Python: %s' % cluster.submit(2)())
"""

VARIANTS = """
import dispy

def compute(n):
    return n + 1

if __name__ == '__main__':
    for options in (dict(nodes=['127.0.0.*'], ip_addr='127.0.0.1'),
                    dict(nodes='*', host='127.0.0.1', ext_host='127.0.0.1'),
                    dict(nodes=[('*', None, 1)], ext_ip_addr=['127.0.0.1']),
                    dict(nodes=[dict(host='*', cpus=1)], pulse_interval=2, ping_interval=5),
                    dict(nodes=[dispy.NodeAllocate('*', cpus=2)], port=0, cleanup=True)):
        cluster = dispy.JobCluster(compute, loglevel=30, **options)
        job = cluster.submit(1)
        print(job(), job.status == dispy.DispyJob.Finished, job._args or job.args)
        print(cluster.name, cluster.close(timeout=5), cluster.close())
"""


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (CANONICAL, ["executed job 9 at", "speedup"]),
        (PARTIAL_SETUP, [f"{n}: 1000" for n in range(10)]),
        (NODE_ALLOCATE, ["digest of data.txt: da39a3ee", "digest of data.txt: 95cb0bfd"]),
        (SHARED_VARIABLES, ["in step: True"]),
        (OBJECTS, ["instance 0: False, 0: 0.00", "instance 2: True, 2: 0.02"]),
        (PROVISIONAL % "callback", ["acceptable", "all ended: True"]),
        (PROVISIONAL % "job_status", ["acceptable", "all ended: True"]),
        (
            SCHEDULER,
            ["node True with True cpus", "files: ['part0', 'part1', 'part2', 'part3']"],
        ),
        (DELEGATE, ["square: (4, True)", "cube: (27, True)", "square: (16, True)"]),
        (SENT_FILES, ["0 result 0", "0 result 1", "0 result 2"]),
        (TWO_CLUSTERS, ["[('a', 2), ('b', 2), ('c', 1)]"]),
        (UPDATE_NODES, ["updated: 0, in place"]),
        (METHOD, ["as dispy 4: 10", "as Python: 6"]),
        (VARIANTS, ["2 True (1,)", "compute True None"]),
    ],
    ids=[
        "canonical", "partial_setup", "node_allocate", "shared_variables", "objects", "callback",
        "job_status", "scheduler", "delegate", "sent_files", "two_clusters", "update_nodes",
        "method", "variants",
    ],
)  # fmt: skip
def test_a_program_for_dispy_4_runs_as_it_stands(run_program, source, wanted) -> None:
    program = run_program(source)
    assert program.end() == 0, program.output
    assert "Traceback" not in program.output
    for text in wanted:
        assert text in program.output, f"{text!r} is missing:\n{program.output}"


def test_a_program_that_only_submits_waits_for_its_jobs_at_its_end(run_program, tmp_path) -> None:
    program = run_program(PROGRAM)
    assert program.end() == 0, program.output
    assert sorted(map(int, (tmp_path / "out").read_text().split())) == list(range(20))
