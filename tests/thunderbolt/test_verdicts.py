"""One word per port, why, and what to do; and never Recovery where it cannot help."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon.thunderbolt.cables import cables, peer_of
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.machine import other
from daemon.thunderbolt.offer import offer
from daemon.thunderbolt.run import Output
from daemon.thunderbolt.verdicts import Verdict, Word, of_machine, of_port
from tests.thunderbolt.recordings import outputs, recorded, said

EMPTY = said("mini-tb4")["ibv_devices"]


def verdicts(name: str, machine: Machine, **others: Machine) -> dict[str, Verdict]:
    """By receptacle."""
    nodes = {name: machine, **others}
    found = cables(nodes)
    return {p.receptacle: of_port(machine, p, peer_of(name, p, found)) for p in machine.ports}


def words(name: str, machine: Machine, **others: Machine) -> list[str]:
    return [verdict.word.value for verdict in verdicts(name, machine, **others).values()]


def cabled(machine: Machine, **changes: Any) -> Machine:
    """With the port that is in use changed."""
    ports = [replace(p, **changes) if p.connected == "yes" else p for p in machine.ports]
    return replace(machine, ports=ports)


def test_two_machines_that_are_ready() -> None:
    assert words("a", recorded("mini-a"), b=recorded("mini-b")) == [
        "link-down",
        "ready",
        "link-down",
    ]
    assert offer(recorded("mini-a")).devices == ["rdma_en3"]
    assert offer(recorded("mini-a")).why_not == ""
    assert offer(recorded("mini-a")).boot.startswith("11111111")


@pytest.mark.parametrize("change", [{}, {"ibv_devices": "hangs"}, {"ibv_devinfo": "hangs"}])
def test_ports_without_a_cable_are_known_whatever_the_driver_does(change: dict[str, str]) -> None:
    assert offer(recorded("mini-a", **change)).unplugged == ["rdma_en2", "rdma_en4"]
    assert offer(recorded("mini-a", system_profiler="hangs", **change)).unplugged == []


def test_thunderbolt_4_is_never_sent_to_recovery() -> None:
    for flag in ("enabled", "disabled", ""):
        machine = replace(recorded("mini-tb4"), rdma=flag)
        found = verdicts("a", machine).values()
        assert {verdict.word for verdict in found} == {Word.UNSUPPORTED_HW}
        assert not any("ecovery" in verdict.todo + verdict.reason for verdict in found)
    assert "none is needed" in offer(recorded("mini-tb4")).why_not


def test_thunderbolt_4_is_not_told_to_update() -> None:
    verdict = of_machine(replace(recorded("mini-tb4"), version="15.7"))
    assert verdict is not None
    assert (verdict.word, "update" in verdict.todo) == (Word.UNSUPPORTED_HW, False)


@pytest.mark.parametrize("speed", [0, 40])
def test_unknown_hardware_is_not_sent_to_recovery(speed: int) -> None:
    """A link of 40 Gb/s may be a cable's fault, or an old Mac."""
    machine = replace(recorded("mini-tb4"), model="Mac99,1", rdma="disabled")
    machine = replace(machine, ports=[replace(p, most=0, speed=speed) for p in machine.ports])
    verdict = of_machine(machine)
    assert verdict is not None
    assert verdict.word is Word.UNKNOWN
    assert "ecovery" not in verdict.todo


def test_the_flag_is_off() -> None:
    found = verdicts("a", recorded("macbook-off"), b=recorded("macbook-on"))
    assert {verdict.word for verdict in found.values()} == {Word.NEEDS_RECOVERY}


def test_the_flag_of_the_peer_is_off() -> None:
    known = verdicts("b", recorded("macbook-on"), a=recorded("macbook-off"))["2"]
    assert known.word is Word.PEER_DISABLED
    assert known.reason.startswith("a: RDMA is off")
    unknown = verdicts("b", recorded("macbook-on"))["2"]
    assert unknown.word is Word.PEER_DISABLED
    assert "does not announce RDMA" in unknown.reason


def test_what_is_connected_is_no_mac() -> None:
    found = verdicts("b", recorded("macbook-on"))
    assert found["1"].reason == "no cable"
    assert found["3"].word is Word.LINK_DOWN
    assert "not a Mac" in found["3"].reason


def test_on_without_devices() -> None:
    machine = recorded("mini-a", ibv_devices=EMPTY, ibv_devinfo="No IB devices found\n")
    assert set(words("a", machine)) == {"needs-reboot"}
    assert "restart" in offer(machine).why_not


@pytest.mark.parametrize("version", ["26.1", "26.1.2", "15.7.1"])
def test_an_old_system(version: str) -> None:
    old = f"ProductVersion:\t\t{version}\nBuildVersion:\t\t25B1\n"
    machine = recorded("mini-a", sw_vers=old, rdma_ctl="missing", ibv_devices="missing")
    assert set(words("a", machine)) == {"unsupported-os"}


@pytest.mark.parametrize("version", ["26.2", "26.2.1", "27.0", "26.10"])
def test_a_system_that_is_new_enough(version: str) -> None:
    assert words("a", replace(recorded("mini-a"), version=version))[1] == "ready"


def test_a_system_of_which_the_version_is_not_known_goes_on() -> None:
    assert words("a", recorded("mini-a", sw_vers="missing"))[1] == "ready"


def test_a_tool_that_hangs_is_a_wedged_driver() -> None:
    machine = recorded("mini-a", ibv_devinfo="hangs")
    found = verdicts("a", machine)
    assert {verdict.word for verdict in found.values()} == {Word.WEDGED}
    assert "cable" in found["2"].todo
    assert offer(machine).devices == []


@pytest.mark.parametrize(
    ("tool", "word"),
    [
        ("ibv_devices", "ready"),  # ibv_devinfo names it too
        ("rdma_ctl", "ready"),  # there are devices, so it is on
        ("system_profiler", "ready"),
        ("networksetup", "unknown"),  # which device the port is
        ("ibv_devinfo", "unknown"),
        ("ifconfig", "ready"),  # it has an IPv4 GID
        ("sysctl", "ready"),
    ],
)
def test_a_missing_tool_is_no_no(tool: str, word: str) -> None:
    machine = recorded("mini-a", **{tool: "missing"})
    found = {of_port(machine, port).word.value for port in machine.ports}
    assert word in found
    assert not found & {"needs-recovery", "needs-reboot", "unsupported-hw", "unsupported-os"}


@pytest.mark.parametrize("how", ["missing", "failed", ""])
def test_devices_that_nobody_listed_may_be_there(how: str) -> None:
    lost = dict.fromkeys(("ibv_devices", "ibv_devinfo"), Output(how) if how else Output("ok"))
    verdict = of_machine(recorded("mini-a", **lost))
    assert verdict is not None
    assert verdict.word is Word.UNKNOWN
    assert "ibv_devices" in verdict.reason


def test_no_tool_at_all() -> None:
    machine = recorded("mini-a", **dict.fromkeys(outputs("mini-a"), "missing"))
    verdict = of_machine(machine)
    assert verdict is not None
    assert verdict.word is Word.UNKNOWN
    assert offer(machine).why_not.startswith("unknown: ")


def test_a_flag_that_is_not_understood() -> None:
    machine = recorded("mini-a", rdma_ctl="partly", ibv_devices=EMPTY, ibv_devinfo="missing")
    verdict = of_machine(machine)
    assert verdict is not None
    assert verdict.word is Word.UNKNOWN
    assert "unreadable" in verdict.reason


def test_a_port_in_a_bridge() -> None:
    machine = recorded(
        "mini-a",
        ifconfig=said("mini-a")["ifconfig"].replace("member: en2", "member: en3"),
    )
    found = verdicts("a", machine, b=recorded("mini-b"))["2"]
    assert found.word is Word.BRIDGE_ACTIVE
    assert "bridge0" in found.reason


def test_a_port_without_an_address() -> None:
    bare = said("mini-a")["ibv_devinfo"].replace("GID[  1]:\t\t::ffff:169.254.10.1", "")
    machine = recorded("mini-a", ibv_devinfo=bare)
    assert words("a", machine)[1] == "needs-address"
    assert "published" in verdicts("a", machine)["2"].reason
    gone = said("mini-a")["ifconfig"].replace("inet 169.254.10.1", "was 169.254.10.1")
    machine = recorded("mini-a", ibv_devinfo=bare, ifconfig=gone)
    assert "has none" in verdicts("a", machine)["2"].reason


def test_ends_in_different_subnets() -> None:
    other = cabled(recorded("mini-b"), addresses=["10.1.0.2/24"], gids=["::ffff:10.1.0.2"])
    found = verdicts("a", recorded("mini-a"), b=other)["2"]
    assert found.word is Word.NEEDS_ADDRESS
    assert "subnet" in found.reason


def test_thunderbolt_5_at_40() -> None:
    found = verdicts("a", cabled(recorded("mini-a"), speed=40), b=recorded("mini-b"))["2"]
    assert found.word is Word.READY
    assert "40 Gb/s: the cable or the peer limits it" in found.reason


def test_a_gid_at_another_index() -> None:
    machine = cabled(recorded("mini-a"), gids=["fe80::1", "fe80::2", "::ffff:169.254.10.1"])
    found = verdicts("a", machine, b=recorded("mini-b"))["2"]
    assert found.word is Word.READY
    assert "number 2 where JACCL uses 1" in found.reason


def test_builds_that_differ() -> None:
    found = verdicts("a", recorded("mini-a"), b=replace(recorded("mini-b"), build="25F99"))["2"]
    assert found.word is Word.READY
    assert "25F80 here, 25F99 on b" in found.reason


def test_the_port_of_a_studio_beside_ethernet() -> None:
    machine = recorded("studio")
    found = verdicts("s", machine)
    assert found["1"].word is Word.UNSUPPORTED_HW
    assert "another port" in found["1"].todo
    assert found["3"].word is Word.READY
    assert offer(machine).devices == ["rdma_en4"]


def test_a_cable_into_that_port_is_told_at_the_other_end() -> None:
    studio = recorded("studio")
    mini = recorded("mini-a")
    one = next(port for port in mini.ports if port.domain.startswith("A0000001"))
    there = replace(one, connected="yes", peer_domain=studio.ports[1].domain, state="down")
    mini = replace(mini, ports=[there])
    found = verdicts("a", mini, s=studio)["1"]
    assert studio.ports[1].interface == "en2"
    assert found.word is Word.PEER_DISABLED
    assert "Mac Studio" in found.reason


def test_down_though_both_could() -> None:
    found = verdicts("a", cabled(recorded("mini-a"), state="down"), b=recorded("mini-b"))["2"]
    assert found.word is Word.LINK_DOWN
    assert "both ends have RDMA" in found.reason


def test_a_port_without_its_device() -> None:
    lone = cabled(recorded("mini-a"), device="", state="")
    assert verdicts("a", lone)["2"].word is Word.NEEDS_REBOOT


def test_devices_without_a_receptacle_are_shown() -> None:
    machine = recorded("mini-a", system_profiler="missing")
    assert [port.device for port in machine.ports] == ["rdma_en2", "rdma_en3", "rdma_en4"]
    assert of_port(machine, machine.ports[1]).word is Word.READY
    assert of_port(machine, machine.ports[0]).word is Word.BRIDGE_ACTIVE


def test_linux_says_what_is_possible() -> None:
    machine = other("Linux", "6.1", "b", outputs("linux-rxe"))
    (port,) = machine.ports
    assert (port.device, port.state, port.ipv4_gid) == ("rxe0", "active", "::ffff:10.0.0.5")
    verdict = of_port(machine, port)
    assert verdict.word is Word.UNSUPPORTED_OS
    assert "NCCL" in verdict.reason
    assert offer(machine).boot == "b"


def test_every_verdict_but_ready_says_more_than_its_word() -> None:
    for name in ("mini-a", "macbook-off", "macbook-on", "mini-tb4", "studio"):
        for verdict in verdicts("a", recorded(name)).values():
            assert verdict.reason
            assert "\n" not in verdict.reason + verdict.todo
