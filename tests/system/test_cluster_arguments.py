"""What `JobCluster` accepts, in the words of each generation of dispy, and what it refuses."""

import functools
import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dispy
from dispy import DispyError, DispyJob, JobCluster

Open = Callable[..., JobCluster]


def double(n: int) -> int:
    return 2 * n


def one(job: object) -> None:
    """Be a callback for a job."""


def three(status: object, node: object, job: object) -> None:
    """Be a callback for whatever happens."""


@pytest.fixture(autouse=True)
def _level_of_the_program() -> Iterator[None]:
    level = dispy.logger.level
    yield
    dispy.logger.setLevel(level)


def test_the_first_five_arguments_have_the_order_of_dispy_4(open_cluster: Open) -> None:
    cluster = open_cluster(double, ["*"], [], one, three)
    assert (cluster.name, cluster.job_status, cluster.cluster_status) == ("double", one, three)
    assert cluster.submit(4)() == 8


@pytest.mark.parametrize(
    "options",
    [
        {"ip_addr": "127.0.0.1", "port": 51347, "node_port": 51348, "ext_ip_addr": "10.0.0.1"},
        {"host": ["127.0.0.1"], "dispy_port": 51347, "ext_host": "10.0.0.1"},
        {"ipv4_udp_multicast": True, "poll_interval": 5, "recover_file": "recover"},
        {"dest_path": "somewhere", "cleanup": True, "ping_interval": 1, "pulse_interval": 0.1},
        {"loglevel": logging.DEBUG, "reentrant": True, "secret": "", "keyfile": None},
        {"depends": [], "setup": None, "cleanup": True, "certfile": None, "poll_interval": None},
    ],
)
def test_arguments_of_every_generation_are_accepted(open_cluster: Open, options: dict) -> None:
    assert open_cluster(double, **options).submit(1)() == 2


def test_the_newer_name_of_an_argument_wins_with_a_warning(
    open_cluster: Open, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = open_cluster(double, callback=print, job_status=one, host="a", ip_addr="b")
    assert cluster.job_status is one
    assert "both job_status and callback were given; job_status is used" in caplog.text
    assert "both host and ip_addr were given; host is used" in caplog.text


def test_what_has_no_effect_is_told_to_those_who_debug(
    open_cluster: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_cluster(double, ext_host="r", loglevel=dispy.logger.DEBUG)
    assert "without effect in this version: ext_host" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depends": [7]}, "depends: 7 is neither a file nor code"),
        ({"certfile": "no/a.pem"}, "certfile: cannot read no/a.pem: No such file"),
        ({"keyfile": "b.pem"}, "keyfile: a key needs its certificate"),
        ({"nodes": 7}, '"nodes" argument is invalid'),
        ({"nodes": [7]}, "7 is not a host"),
        ({"nodes": ["no.such.host.invalid"]}, "none of .* can be resolved"),
        ({"callback": 5}, "callback is a function of 1 arguments, not 5"),
        ({"callback": three}, "callback: 'three' cannot be called with 1 argument, "),
        ({"job_status": lambda: None}, "cannot be called with 1 argument"),
        ({"cluster_status": one}, "'one' cannot be called with 3 arguments"),
        ({"ping_interval": 0.5}, "ping_interval: 0.5 is not 1 to 1000 seconds"),
        ({"pulse_interval": 0.01}, "pulse_interval: 0.01 is not 0.1 to 1000 seconds"),
        ({"pulse_interval": "1"}, "pulse_interval: '1' is not a number of seconds"),
        ({"poll_interval": 2000}, "poll_interval is a number of seconds from 5 to 1000"),
        ({"node_port": "51348"}, "node_port: '51348' is not a whole number"),
        ({"dispy_port": "70000"}, "dispy_port is a whole number"),
        ({"loglevel": "LOUD"}, "loglevel"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    open_cluster: Open, options: dict, words: str
) -> None:
    with pytest.raises(DispyError, match=words):
        open_cluster(double, **options)


@pytest.mark.parametrize(
    ("computation", "words"),
    [(5, "invalid computation type"), ("no-such-program-anywhere", "neither a file here nor in")],
)
def test_a_computation_is_a_function_or_a_program(
    open_cluster: Open, computation: object, words: str
) -> None:
    with pytest.raises(DispyError, match=words):
        open_cluster(computation)


def test_methods_partials_and_callable_objects_are_callbacks(open_cluster: Open) -> None:
    class Callable_:
        def __call__(self, job: DispyJob, default: int = 0) -> None:
            told.append(job)

    told: list[object] = []
    for callback in (Callable_(), functools.partial(lambda a, b: told.append(b), 1), told.append):
        cluster = open_cluster(double, callback=callback)
        job = cluster.submit(1)
        cluster.wait()
        assert told.pop() is job


def test_reentrant_is_a_flag(open_cluster: Open, caplog: pytest.LogCaptureFixture) -> None:
    assert open_cluster(double, reentrant="yes").reentrant is False
    assert "reentrant is True or False, not 'yes'" in caplog.text


def test_a_level_that_the_program_has_set_stays(open_cluster: Open) -> None:
    dispy.logger.setLevel(logging.ERROR)
    open_cluster(double)
    assert dispy.logger.level == logging.ERROR
    open_cluster(double, loglevel=logging.WARNING)
    assert dispy.logger.level == logging.WARNING


def test_a_program_and_a_function_run_side_by_side(open_cluster: Open, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho out $1\nexit $2\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    programs, functions = open_cluster(str(script)), open_cluster(double)
    pairs = [(programs.submit(n, n), functions.submit(n)) for n in range(5)]
    for n, (program, function) in enumerate(pairs):
        assert (program(), function()) == (n, 2 * n)
        assert program.stdout == f"out {n}\n".encode()
        assert program.status == DispyJob.Finished
    assert programs.name == str(script)
    assert programs.submit(keyword=1) is None
    programs.close()
    assert functions.submit(21)() == 42
