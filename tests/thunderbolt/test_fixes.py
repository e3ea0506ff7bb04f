"""What is mended live: as little as will do, printed before it is run, and with the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon.thunderbolt import recovery
from daemon.thunderbolt.cables import cables
from daemon.thunderbolt.facts import Machine, Port
from daemon.thunderbolt.fixes import Fix, fixes, text
from tests.thunderbolt.recordings import recorded

A, B = recorded("mini-a"), recorded("mini-b")


def cabled(machine: Machine, **changes: Any) -> Machine:
    return replace(
        machine,
        ports=[replace(p, **changes) if p.connected == "yes" else p for p in machine.ports],
    )


def bare(machine: Machine) -> Machine:
    """Without an IPv4 address on the port that is in use."""
    return cabled(machine, addresses=[], gids=["fe80::1"])


def lines(found: list[Fix], node: str) -> list[str]:
    return [text(command) for fix in found if fix.node == node for command in fix.commands]


def applied(machine: Machine, found: list[Fix], node: str) -> Machine:
    """The machine as these commands would make it."""
    ports = {port.interface: port for port in machine.ports}
    for command in (c for fix in found if fix.node == node for c in fix.commands):
        match command:
            case ["sudo", "ifconfig", bridge, "deletem", name]:
                assert ports[name].bridge == bridge
                ports[name] = replace(ports[name], bridge="")
            case ["sudo", "ifconfig", name, "inet", ip, "netmask", mask, "alias"]:
                width = sum(bin(int(part)).count("1") for part in mask.split("."))
                ports[name] = _with(ports[name], f"{ip}/{width}")
            case ["sudo", "ifconfig", name, "inet", ip, "-alias"]:
                ports[name] = _without(ports[name], ip)
            case ["sudo", "networksetup", "-setnetworkserviceenabled", "Thunderbolt Bridge", "off"]:
                pass
            case _:
                raise AssertionError(command)
    return replace(machine, ports=list(ports.values()))


def _with(port: Port, address: str) -> Port:
    gid = f"::ffff:{address.partition('/')[0]}"
    return replace(port, addresses=[*port.addresses, address], gids=[*port.gids, gid])


def _without(port: Port, ip: str) -> Port:
    return replace(
        port,
        addresses=[a for a in port.addresses if not a.startswith(f"{ip}/")],
        gids=[gid for gid in port.gids if gid != f"::ffff:{ip}"],
    )


def mended(a: Machine, b: Machine) -> list[Fix]:
    """The fixes for these two, of which it is certain that they help."""
    found = fixes({"a": a, "b": b})
    after = {"a": applied(a, found, "a"), "b": applied(b, found, "b")}
    assert [cable.ready for cable in cables(after)] == [True]
    assert fixes(after) == []
    return found


def test_nothing_to_mend() -> None:
    assert fixes({"a": A, "b": B}) == []


def test_out_of_the_bridge() -> None:
    found = mended(cabled(A, bridge="bridge0"), B)
    assert lines(found, "a") == [
        "sudo networksetup -setnetworkserviceenabled 'Thunderbolt Bridge' off",
        "sudo ifconfig bridge0 deletem en3",
    ]
    assert [text(command) for command in found[0].undo] == [
        "sudo ifconfig bridge0 addm en3",
        "sudo networksetup -setnetworkserviceenabled 'Thunderbolt Bridge' on",
    ]
    assert lines(found, "b") == []


def test_ports_without_a_cable_stay_in_the_bridge() -> None:
    assert all("en2" not in text(c) for fix in mended(bare(A), B) for c in fix.commands)


def test_an_address_in_the_subnet_of_the_other_end() -> None:
    found = mended(bare(A), B)
    assert lines(found, "a") == ["sudo ifconfig en3 inet 169.254.10.3 netmask 255.255.0.0 alias"]
    assert [text(command) for command in found[0].undo] == [
        "sudo ifconfig en3 inet 169.254.10.3 -alias"
    ]


@pytest.mark.parametrize("address", ["8.8.8.8/24", "127.0.0.1/8", "10.0.0.1/4", "0.0.0.1/0"])
def test_an_address_that_would_draw_other_traffic_is_not_given(address: str) -> None:
    gid = f"::ffff:{address.partition('/')[0]}"
    assert fixes({"a": bare(A), "b": cabled(B, addresses=[address], gids=["fe80::1", gid])}) == []


def test_two_addresses_where_there_are_none() -> None:
    found = mended(bare(A), bare(B))
    assert lines(found, "a") == [
        "sudo ifconfig en3 inet 169.254.200.1 netmask 255.255.255.252 alias"
    ]
    assert lines(found, "b") == [
        "sudo ifconfig en3 inet 169.254.200.2 netmask 255.255.255.252 alias"
    ]


def test_addresses_that_others_have_are_not_given() -> None:
    taken = recorded("studio")
    port = replace(taken.ports[2], addresses=["169.254.200.2/16"])
    found = fixes({"a": bare(A), "b": bare(B), "s": replace(taken, ports=[port])})
    assert "169.254.200.5" in lines(found, "a")[0]


def test_a_self_assigned_address_gives_way() -> None:
    """More beside it would not help: JACCL takes the first."""
    other = cabled(B, addresses=["10.1.0.2/24"], gids=["fe80::1", "::ffff:10.1.0.2"])
    found = mended(A, other)
    assert lines(found, "a") == [
        "sudo ifconfig en3 inet 169.254.10.1 -alias",
        "sudo ifconfig en3 inet 10.1.0.3 netmask 255.255.255.0 alias",
    ]
    assert [text(command) for command in found[0].undo] == [
        "sudo ifconfig en3 inet 10.1.0.3 -alias",
        "sudo ifconfig en3 inet 169.254.10.1 netmask 255.255.0.0 alias",
    ]


def test_addresses_that_people_gave_are_theirs_to_change() -> None:
    one = cabled(A, addresses=["10.2.0.1/24"], gids=["::ffff:10.2.0.1"])
    other = cabled(B, addresses=["10.1.0.2/24"], gids=["::ffff:10.1.0.2"])
    assert fixes({"a": one, "b": other}) == []


def test_the_end_of_a_subnet() -> None:
    other = cabled(B, addresses=["10.1.0.2/30"], gids=["::ffff:10.1.0.2"])
    assert "10.1.0.1 netmask 255.255.255.252" in lines(mended(bare(A), other), "a")[0]


def test_what_cannot_be_ready_is_left_alone() -> None:
    for other in (replace(B, rdma="disabled"), replace(B, version="26.1"), cabled(B, device="")):
        assert fixes({"a": bare(A), "b": other}) == []


def test_recovery_is_for_the_nodes_that_need_it() -> None:
    machines = {
        "off": recorded("macbook-off"),
        "on": recorded("macbook-on"),
        "old": replace(recorded("mini-tb4"), rdma="disabled"),
        "strange": replace(recorded("mini-tb4"), rdma="disabled", model="Mac99,1", ports=[]),
        "linux": Machine("Linux"),
    }
    assert recovery.nodes(machines) == ["off"]
    steps = recovery.steps(["off"])
    assert [line.split(".")[0] for line in steps] == [str(n) for n in range(1, len(steps) + 1)]
    assert "off" in steps[0]
    assert any("rdma_ctl enable" in line for line in steps)
    assert recovery.steps([]) == []
    assert any("rdma_ctl disable" in line for line in recovery.undo(["off"]))
