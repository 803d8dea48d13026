"""`dispy.config` as programs for dispy 4 use it: they overwrite it before they create a cluster."""

import pytest

import dispy
from dispy.client.arguments import choose_file_size, choose_port, choose_scheduler_port
from dispy.model.errors import DispyError


def test_the_modules_two_names_are_one() -> None:
    import dispy.config
    from dispy.model import overrides

    assert dispy.config is overrides


@pytest.mark.parametrize(
    ("name", "value", "port"),
    [
        ("DispyPort", 9700, 9701),
        ("NodePort", 5000, 5000),
        ("NodePort", "5000", 5000),
        ("NodePort", "DispyPort + 4", 51351),
        ("NodePort", "DispyPort", 51347),
    ],
)
def test_a_port_set_there_is_that_of_nodes(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, port: int
) -> None:
    assert choose_port(None, None) is None
    monkeypatch.setattr(dispy.config, name, value)
    assert choose_port(None, None) == port
    assert choose_port(6000, None) == 6000, "an argument wins"
    assert choose_port(None, 6000) == 6001


@pytest.mark.parametrize(
    ("name", "value", "port"),
    [
        ("DispyPort", 9700, 9702),
        ("SharedSchedulerPort", 5000, 5000),
        ("SharedSchedulerPort", "DispyPort + 4", 51351),
    ],
)
def test_a_port_set_there_is_that_of_a_shared_scheduler(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, port: int
) -> None:
    assert choose_scheduler_port(None, None) == 51349
    monkeypatch.setattr(dispy.config, name, value)
    assert choose_scheduler_port(None, None) == port
    assert choose_scheduler_port(6000, None) == 6000, "an argument wins"
    assert choose_scheduler_port(None, 6000) == 6002
    with pytest.raises(DispyError, match="scheduler_port is a number from 1 to 65535, not '1'"):
        choose_scheduler_port("1", None)


def test_the_limit_of_files_set_there_counts_unless_an_argument_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose_file_size(None) is None
    monkeypatch.setattr(dispy.config, "MaxFileSize", 1000)
    assert choose_file_size(None) == 1000
    assert choose_file_size(0) == 0


@pytest.mark.parametrize("value", ["", "__import__('os').getpid()", "DispyPort * 2", None])
def test_what_is_no_port_is_refused_and_never_evaluated(
    monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    monkeypatch.setattr(dispy.config, "NodePort", value)
    with pytest.raises(DispyError, match="NodePort is a number or"):
        choose_port(None, None)


def test_the_logger_has_what_that_of_dispy_4_had() -> None:
    dispy.logger.show_ms(True)
    dispy.logger.flush()
    assert (dispy.logger.DEBUG, dispy.logger.FATAL) == (10, 50)
