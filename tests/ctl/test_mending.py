"""rdma enable --fix, rdma test --report: commands are printed, then run here alone, and undone."""

import json
import os
from dataclasses import replace

import pytest

from ctl import mending
from ctl.commands import rdma_switch
from daemon.coordinator.ports_view import ports_view
from daemon.thunderbolt import report
from tests.ctl.fake import reply
from tests.ctl.test_rdma_switch import ENABLED, PAIR, followed
from tests.thunderbolt.recordings import recorded, write_tools

BARE = {"addresses": [], "gids": ["fe80::1"]}


def bare(machine):
    ports = [replace(p, **BARE) if p.connected == "yes" else p for p in machine.ports]
    return replace(machine, ports=ports)


FACTS = {
    "machines": {
        "a": bare(recorded("mini-a")).to_wire(),
        "b": bare(recorded("mini-b")).to_wire(),
        "off": recorded("macbook-off").to_wire(),
        "tb4": replace(recorded("mini-tb4"), rdma="disabled").to_wire(),
    },
    "silent": [],
}
OF_A = "sudo ifconfig en3 inet 169.254.200.1 netmask 255.255.255.252 alias"
OF_B = "sudo ifconfig en3 inet 169.254.200.2 netmask 255.255.255.252 alias"
DONE = ENABLED | {"hops": []}


@pytest.fixture(autouse=True)
def this_machine(monkeypatch):
    """Which shardctl runs on: in most tests that of node a."""

    def become(machine):
        monkeypatch.setattr(rdma_switch, "this_machine", lambda: machine)

    become(bare(recorded("mini-a")))
    return become


@pytest.fixture
def sudo(tmp_path):
    """A sudo that writes down what it is to run, and ends with what the test says."""
    log, code = tmp_path / "log", tmp_path / "code"
    code.write_text("0")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "sudo"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}; exit $(cat {code})\n')
    script.chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}, log, code


def enable(ctl, coordinator, path, *words, facts=FACTS):
    fake = coordinator(rdma_ports=reply(facts), rdma_enable=reply(DONE))
    return fake, ctl("rdma", "enable", *words, "--endpoint", fake.endpoint, **path)


def test_commands_are_printed_and_not_run(ctl, coordinator, sudo):
    path, log, _ = sudo
    for words in ((), ("--dry-run",), ("--fix", "--dry-run")):
        _, done = enable(ctl, coordinator, path, *words)
        assert done.returncode == 0
        for line in (OF_A, OF_B, "to undo it: sudo ifconfig en3 inet 169.254.200.1 -alias"):
            assert line in done.stderr
        assert not log.exists()


def test_recovery_is_for_those_who_need_it(ctl, coordinator, sudo):
    _, done = enable(ctl, coordinator, sudo[0])
    assert "1. on off: somebody has to be there" in done.stderr
    assert "tb4" not in done.stderr
    well = {**FACTS, "machines": {"tb4": FACTS["machines"]["tb4"]}}
    _, done = enable(ctl, coordinator, sudo[0], facts=well)
    assert "rdma_ctl" not in done.stderr


def test_this_machine_is_mended_and_the_others_are_named(ctl, coordinator, sudo):
    path, log, _ = sudo
    fake, done = enable(ctl, coordinator, path, "--fix")
    assert done.returncode == 0
    assert log.read_text().splitlines() == [OF_A.removeprefix("sudo ")]
    assert "on b run" in done.stderr
    assert done.stderr.index(OF_A) < done.stderr.index(f"+ {OF_A}")  # printed before
    assert fake.wait_for("rdma.enable").arguments == {"dry_run": False}


def test_what_a_node_says_names_no_interface_here(ctl, coordinator, sudo):
    path, log, _ = sudo
    facts = json.loads(json.dumps(FACTS))
    for port in facts["machines"]["a"]["ports"]:
        port |= {"interface": "en0", "bridge": "bridge7"}
    _, done = enable(ctl, coordinator, path, "--fix", facts=facts)
    assert done.returncode == 0
    assert log.read_text().splitlines() == [OF_A.removeprefix("sudo ")]
    assert "en0" not in done.stderr


@pytest.mark.parametrize("boot", ["another", ""])
def test_a_node_of_another_boot_is_another_machine(ctl, coordinator, sudo, this_machine, boot):
    """Whatever its name. An unknown boot is like no other, also not like another unknown one."""
    path, log, _ = sudo
    this_machine(replace(bare(recorded("mini-a")), boot=boot))
    facts = json.loads(json.dumps(FACTS))
    facts["machines"]["a"]["boot"] = ""
    _, done = enable(ctl, coordinator, path, "--fix", facts=facts)
    assert done.returncode == 0
    assert "on a, b run" in done.stderr
    assert not log.exists()


def test_this_machine_is_looked_at_with_its_own_tools(ctl, coordinator, sudo, tmp_path):
    path, log, _ = sudo
    tools = write_tools(tmp_path / "tools", "mini-a")
    path = {"PATH": f"{tools}:{path['PATH']}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdma_switch, "this_machine", mending.this_machine)
        _, done = enable(ctl, coordinator, path, "--fix")
    assert done.returncode == 0
    assert "en3 inet 169.254." in done.stderr  # for b, beside the address that a has
    assert "on b run" in done.stderr
    assert not log.exists()


def test_a_command_that_fails_ends_it(ctl, coordinator, sudo):
    path, _, code = sudo
    code.write_text("1")
    fake, done = enable(ctl, coordinator, path, "--fix")
    assert done.returncode == 1
    assert f"`{OF_A}` failed: exit code 1" in done.stderr
    assert [request.verb for request in fake.requests] == ["rdma.ports"]


def test_programs_get_the_commands_too(ctl, coordinator, sudo):
    _, done = enable(ctl, coordinator, sudo[0], "--dry-run", "-o", "json")
    data = json.loads(done.stdout)
    assert data["fixes"][0]["commands"] == [OF_A.split()]
    assert data["recovery"] == ["off"]


@pytest.mark.parametrize("name", ["en3; reboot", "-a", "$(reboot)"])
def test_nothing_from_a_socket_is_run(ctl, coordinator, sudo, name):
    path, log, _ = sudo
    facts = json.loads(json.dumps(FACTS))
    facts["machines"]["a"]["ports"][1]["interface"] = name
    fake, done = enable(ctl, coordinator, path, "--fix", facts=facts)
    assert done.returncode == 5
    assert not log.exists()
    assert [request.verb for request in fake.requests] == ["rdma.ports"]


MACHINES = {"a": recorded("mini-a"), "b": recorded("mini-b")}
DOCUMENT = report.document({}, MACHINES, {}, [], ports_view(MACHINES, []), "00")


def test_a_report_alone_tries_nothing(ctl, coordinator, tmp_path):
    file = tmp_path / "report.json"
    fake = coordinator(rdma_report=reply(DOCUMENT))
    done = ctl("rdma", "test", "--report", str(file), "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(file.read_text())["probes"] == []
    assert [request.verb for request in fake.requests] == ["rdma.report"]


def test_a_report_of_a_test_that_failed(ctl, coordinator, tmp_path):
    file = tmp_path / "report.json"
    why = "studio: start: [jaccl] Changing queue pair to RTR failed with errno 22"
    fake = coordinator(rdma_report=reply(DOCUMENT), rdma_test=reply(PAIR | {"why": why}))
    words = ("test", "studio", "mini", "--report", str(file))
    assert ctl("rdma", *words, "--endpoint", fake.endpoint).returncode == 1
    (probe,) = json.loads(file.read_text())["probes"]
    assert (probe["why"], probe["advice"]["row"]) == (why, "rtr-22")


@pytest.mark.parametrize("words", [("a",), ("a", "--report", "x.json"), ("--dry-run",)])
def test_a_test_takes_two_or_a_report(ctl, coordinator, words):
    fake = coordinator()
    done = ctl("rdma", "test", *words, "--endpoint", fake.endpoint)
    assert done.returncode == 2
    assert fake.requests == []


def test_what_is_followed_is_told(ctl, coordinator, sudo):
    fake = coordinator(rdma_ports=reply(FACTS), rdma_enable=followed)
    done = ctl("rdma", "enable", "-v", "--endpoint", fake.endpoint)
    assert done.returncode == 0
