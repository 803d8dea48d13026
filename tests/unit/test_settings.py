"""Every setting is read from where it may be said, in order, and a wrong one is named."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from dispy.client.cluster import JobCluster
from dispy.model.configuration import read_configuration
from dispy.model.errors import DispyError
from dispy.model.setting import Setting, Value
from dispy.model.settings import SETTINGS, processors_to_offer, resolve, settings_of
from dispy.scheduling.choosing import POLICIES, policy_of
from dispy.system.directories import configuration_files

# Whose options are settings of that room.
OPERATING = ("cancel", "drain", "explain", "nodes", "status")
COMMANDS = [
    ("node", "dispy.cli.node"),
    ("scheduler", "dispy.cli.scheduler"),
    *(("operator", f"dispy.cli.{name}") for name in OPERATING),
]
FLAGS = {
    "--json", "--limit", "--off", "--clean", "--debug", "--help", "--serve-descriptor",
    "--fair_cluster_scheduler", "--early_cluster_scheduler", "--cooperative", "--max_file_size",
    "--msg_timeout",
}  # fmt: skip  # no settings: said each time, or other names


def options_of(usage: str) -> dict[str, str]:
    """Return the text of each long option of a usage text, without its line breaks."""
    block = usage.split("Options:\n")[1].split("\n\n")[0]
    found: dict[str, str] = {}
    for line in block.splitlines():
        named = re.match(r"  (?:-\w[^-]*, )?(--[\w-]+)(?:=<\w+>)?  +(.*)", line)
        if named:
            name = named[1]
            found[name] = named[2]
        else:
            found[name] += " " + line.strip()
    return found


def usage_of(module: str) -> str:
    """Return what a command prints for --help."""
    return importlib.import_module(module).__doc__ or ""


@pytest.mark.parametrize(("room", "module"), COMMANDS)
def test_the_usage_text_says_what_the_table_says(room: str, module: str) -> None:
    options = options_of(usage_of(module))
    for setting in settings_of(room):
        if setting.option is None:
            continue
        default = setting.default_text if setting.kind is not bool else ""
        expected = setting.help + (f" (default: {default})" if default else "")
        assert options.pop(setting.option) == expected
        for alias in setting.aliases:
            assert options.pop(alias) == f"dispy 4's name of {setting.option}"
    assert set(options) <= FLAGS


def test_no_usage_text_has_docopt_fill_in_a_default() -> None:
    for _, module in COMMANDS:
        assert "[default:" not in usage_of(module)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_the_page_about_settings_says_what_the_table_says(setting: Setting) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "settings.rst").read_text()
    entry = page.split(f"\n``{setting.key}``\n")[1].split("\n\n")[0]
    ways = [f"option ``{setting.option}``"] if setting.option else []
    ways += [f"argument ``{setting.name}``"] if setting.argument else []
    ways += [f"variable ``{setting.variable}``"] if setting.variable else []
    where = ", ".join(ways) + ("" if setting.in_file else " alone")
    default = f" Default: ``{setting.default_text}``." if setting.default_text else ""
    expected = f"{setting.help}. {where[0].upper()}{where[1:]}.{default}"
    assert " ".join(entry.split()) == expected[0].upper() + expected[1:]


def test_the_arguments_of_a_cluster_say_nothing_by_default() -> None:
    parameters = inspect.signature(JobCluster).parameters
    for setting in SETTINGS.values():
        if setting.argument:
            assert not parameters[setting.name].default, setting.name


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_each_default_may_also_be_said(setting: Setting) -> None:
    if setting.default_text:
        assert setting.read(setting.default_text, "here") == setting.default
    if setting.default is not None:
        assert setting.check(setting.default, "here") == setting.default


def test_who_is_nearest_to_the_call_wins() -> None:
    files = [("user", {"node": {"cpus": 3}}), ("system", {"node": {"cpus": 2, "port": 2}})]
    environment = {"DISPY_CPUS": "4"}
    given = {"cpus": Value("5", "--cpus")}
    assert resolve("node", given, environment, files)["cpus"] == Value(5, "--cpus")
    assert resolve("node", {}, environment, files)["cpus"] == Value(4, "DISPY_CPUS")
    assert resolve("node", {}, {"DISPY_CPUS": ""}, files)["cpus"] == Value(3, "user, node.cpus")
    assert resolve("node", {}, {}, files)["port"] == Value(2, "system, node.port")
    assert resolve("node", {}, {}, [])["port"] == Value(51348, "default")


@pytest.mark.parametrize(
    ("room", "given", "environment", "files", "complaint"),
    [
        ("node", {"cpus": Value("x", "--cpus")}, {}, [],
         "--cpus: 'x' is not a whole number of processors, nor one of all"),
        ("node", {}, {"DISPY_NODE_PORT": "65536"}, [], "DISPY_NODE_PORT: 65536 is not 0 to 65535"),
        ("client", {}, {"DISPY_INSECURE": "maybe"}, [],
         "DISPY_INSECURE: 'maybe' is not yes or no"),
        ("client", {"ping_interval": Value("5", "ping_interval")}, {}, [],
         "ping_interval: '5' is not a number of seconds"),
        ("client", {"pulse_interval": Value(0.01, "pulse_interval")}, {}, [],
         "pulse_interval: 0.01 is not 0.1 to 1000 seconds"),
        ("client", {"node_port": Value(True, "node_port")}, {}, [],
         "node_port: True is not a whole number"),
        ("node", {}, {}, [("/c.toml", {"node": {"port": "high"}})],
         "/c.toml, node.port: 'high' is not a whole number"),
        ("client", {}, {}, [("/c.toml", {"node": {"cpu": 1}})],
         "/c.toml: node.cpu is no setting; did you mean node.cpus?"),
        ("client", {}, {}, [("/c.toml", {"cpus": 1})],
         "/c.toml: cpus stands outside of a table; did you mean node.cpus?"),
        ("client", {}, {}, [("/c.toml", {"cluster": {"ping_intervall": 1}})],
         "/c.toml: cluster.ping_intervall is no setting; did you mean client.ping_interval?"),
        ("node", {}, {}, [("/c.toml", {"node": {"insecure": True}})],
         "/c.toml: node.insecure can only be said by --insecure"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_the_place_where_it_stands(
    room: str, given: dict, environment: dict, files: list, complaint: str
) -> None:
    with pytest.raises(DispyError) as refusal:
        resolve(room, given, environment, files)
    assert str(refusal.value) == complaint


def test_numbers_words_and_truth_are_read_as_people_write_them() -> None:
    environment = {
        "DISPY_LOGLEVEL": "DEBUG", "DISPY_LOCAL_NODE": " off ", "DISPY_PING_INTERVAL": "5",
    }  # fmt: skip
    files = [("/c.toml", {"client": {"pulse_interval": 2, "insecure": True}})]
    found = resolve("client", {}, environment, files)
    assert found["loglevel"].value == 10
    assert found["local_node"].value is False
    assert found["ping_interval"].value == 5.0
    assert found["pulse_interval"].value == 2.0
    assert found["insecure"].value is True


def test_the_users_file_and_the_named_one_are_found(tmp_path: Path) -> None:
    file = tmp_path / "dispy" / "config.toml"
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert str(file) not in configuration_files(environment)
    file.parent.mkdir()
    file.write_text("[node]\ncpus = 2\n")
    assert configuration_files(environment)[0] == str(file)
    assert read_configuration([str(file)]) == [(str(file), {"node": {"cpus": 2}})]
    other = tmp_path / "other.toml"
    environment["DISPY_CONFIG"] = str(other)
    assert configuration_files(environment) == [str(other)]
    with pytest.raises(DispyError, match=r"other.toml: cannot be read: No such file"):
        read_configuration([str(other)])
    other.write_text("cpus: 2")
    with pytest.raises(DispyError, match=r"other.toml: is not TOML: "):
        read_configuration([str(other)])


def test_processors_are_counted_from_either_end_and_are_never_none() -> None:
    offered = [processors_to_offer(Value(n, "--cpus"), 8) for n in (None, 3, 99, -1, -7)]
    assert offered == [8, 3, 99, 7, 1]
    with pytest.raises(DispyError, match="--cpus: 0 processors would run nothing"):
        processors_to_offer(Value(0, "--cpus"), 8)
    with pytest.raises(DispyError, match="--cpus: -8 would leave nothing to offer: .* 8"):
        processors_to_offer(Value(-8, "--cpus"), 8)


def test_each_policy_that_can_be_named_is_there() -> None:
    words = SETTINGS["scheduler.policy"].words
    assert set(words) == set(POLICIES)
    assert {type(policy_of(word)).name for word in words} == set(words)
