"""Machines of one network find each other by broadcast, and only those that may."""

import json
import sys

from dispy.system.interpreter import own_command


def test_a_node_of_another_machine_is_found_and_used(machines, run_client, tmp_path) -> None:
    here, there = machines(2)
    there.start_node(tmp_path)
    client = run_client(here, 1, insecure="1", local_node=False)
    assert client.used() == [there.address], client.output


def test_it_is_refused_by_name_where_nobody_said_that_it_may_be_used(
    machines, run_client, tmp_path
) -> None:
    here, there = machines(2)
    there.start_node(tmp_path, "--name=bench")
    client = run_client(here, 1, until="is refused")
    assert client.used() == ["127.0.0.1"], client.output
    assert "started a local node" in client.output
    refusal = f"node bench at {there.address} port 51348 is refused: nodes of other machines"
    warned, record = client.output.split("ran on")
    assert (warned + record).count(refusal) == 2, client.output  # warned once, and in the record
    assert "DISPY_INSECURE=1" in client.output


def test_a_listed_host_is_used_and_its_neighbour_is_not(machines, run_client, tmp_path) -> None:
    here, there, other = machines(3)
    there.start_node(tmp_path)
    other.start_node(tmp_path)
    client = run_client(here, 1, insecure="1", nodes=[there.address])
    assert client.used() == [there.address], client.output
    assert f"({other.address}) found" not in client.output


def test_a_pattern_that_excludes_a_machine_keeps_it_out(machines, run_client, tmp_path) -> None:
    here, there, other = machines(3)
    there.start_node(tmp_path)
    other.start_node(tmp_path)
    client = run_client(here, 1, insecure="1", nodes=["10.77.*.2"], until="answered, but")
    assert client.used() == [there.address], client.output
    assert f"at {other.address} port 51348 answered, but" in client.output


def test_a_node_that_starts_later_is_joined_by_its_announcement(
    machines, run_client, tmp_path
) -> None:
    here, there = machines(2)
    client = run_client(here, 2, insecure="1")
    while "searched" not in client.line():
        pass
    there.start_node(tmp_path)
    assert client.used() == [there.address, "127.0.0.1"], client.output


def test_a_node_on_loopback_stays_there(machines, run_client, tmp_path) -> None:
    here, there = machines(2)
    there.start_node(tmp_path, host="127.0.0.1")
    nobody = "broadcast on eth0 (10.77.0.255) port 51348: no node answered in "
    client = run_client(here, 1, insecure="1", until=nobody, pause=2.0)
    assert client.used() == ["127.0.0.1"], client.output
    assert nobody in client.output


def test_a_node_that_listens_everywhere_is_one_node_and_this_machine_needs_no_leave(
    machines, run_client, tmp_path
) -> None:
    here, there = machines(2)
    here.start_node(tmp_path, host="0.0.0.0")
    answered = "broadcast on eth0 (10.77.0.255) port 51348: 1 node answered"
    client = run_client(here, 1, until=answered, pause=1.0)
    assert client.used() == [here.address], client.output  # so the node calls itself
    assert answered in client.output
    assert client.output.count(") found") == 1, client.output
    assert "(127.0.0.1) found" in client.output
    assert "refused" not in client.output
    assert "local node" not in client.output
    from_there = run_client(there, 1, insecure="1", local_node=False)
    from_there.used()
    assert f"({here.address}) found" in from_there.output


def test_a_network_without_a_node_costs_a_program_its_patience_alone(machines, run_client) -> None:
    (here,) = machines(1)
    client = run_client(here, 1, insecure="1")
    assert client.used() == ["127.0.0.1"], client.output
    assert "broadcast on eth0 (10.77.0.255) port 51348: no node answered" in client.output


def test_doctor_sees_the_way_to_a_node_and_that_there_is_none(machines, tmp_path) -> None:
    here, there, silent = machines(3)
    there.start_node(tmp_path, "--name=bench")
    doctor = here.start(*own_command("doctor", "--json", there.address, silent.address))
    output, _ = doctor.communicate(timeout=60)
    checks = json.loads(output)
    assert doctor.returncode == 1, output

    def found(subject: str, verdict: str) -> list[str]:
        wanted = (c for c in checks if (c["subject"], c["verdict"]) == (subject, verdict))
        return [check["finding"] for check in wanted]

    assert "10.77.0.1/24, broadcast 10.77.0.255 comes back" in found("network eth0", "ok")
    assert found("nodes", "ok") == [f"1 answer: bench at {there.address} port 51348"]
    well = found(f"host {there.address}", "ok")
    assert "node bench answers pings (UDP port 51348)" in well
    assert any(finding.startswith("node bench listens on TCP port 51348") for finding in well)
    assert found(f"host {there.address}", "warning") == ["its node is not used: there is no secret"]
    assert found(f"host {silent.address}", "problem") == ["nothing listens on TCP port 51348"]


TWO_CLUSTERS = """
import dispy, time

def where():
    return dispy_node_ip_addr

if __name__ == "__main__":
    trusting = dispy.JobCluster(where, insecure=True, local_node=False)
    print(trusting.submit()())
    trusting.print_status()
    careful = dispy.JobCluster(where)
    print(careful.submit()())
    print(len(careful.status().nodes), len(trusting.status().nodes))
"""


def test_what_one_cluster_of_a_program_trusts_another_does_not(machines, tmp_path) -> None:
    here, there = machines(2)
    there.start_node(tmp_path)
    path = tmp_path / "two.py"
    path.write_text(TWO_CLUSTERS)
    program = here.start(sys.executable, str(path))
    output, _ = program.communicate(timeout=60)
    said = [line for line in output.splitlines() if " dispy." not in line]  # without its log
    assert said[0] == there.address, output
    assert said[-2:] == ["127.0.0.1", "1 1"], output


def test_who_uses_no_encryption_is_told_at_the_start_and_in_the_status(machines, tmp_path) -> None:
    here, there = machines(2)
    there.start_node(tmp_path, "--name=bench")
    path = tmp_path / "two.py"
    path.write_text(TWO_CLUSTERS)
    program = here.start(sys.executable, str(path))
    output, _ = program.communicate(timeout=60)
    assert output.count(f"the link to node bench ({there.address}) is not encrypted") == 1, output
    assert f"Not encrypted (insecure): {there.address}\n" in output


def test_a_node_that_lets_everybody_in_says_so_at_its_start(machines, tmp_path) -> None:
    (there,) = machines(1)
    options = f"--host={there.address}", f"--dest_path_prefix={tmp_path}", "--insecure"
    node = there.start(*own_command("node", *options))
    said = ""
    while "serves" not in said:
        line = node.stdout.readline()
        assert line, said
        said += line
    assert f"--insecure: everybody who reaches {there.address} may run programs here" in said
