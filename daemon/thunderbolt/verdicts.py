"""What is to be thought of a port: one word, why, and what to do. Of several things that stand in
the way, the first: those of the machine before those of the port.

Recovery is advised only where Thunderbolt 5 is certain and the flag is off: on other hardware the
flag may be on and there is still nothing (operations: a Mac with Thunderbolt 4 was sent there in
vain by every program that looked at the flag alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Interface

from daemon.thunderbolt.facts import Machine, Port
from daemon.thunderbolt.hardware import (
    THUNDERBOLT_4,
    has_thunderbolt_5,
    is_port_without_rdma,
    model_has_thunderbolt_5,
)
from daemon.thunderbolt.system import FIRST_VERSION, version_of


class Word(StrEnum):
    READY = "ready"
    LINK_DOWN = "link-down"
    PEER_DISABLED = "peer-disabled"
    NEEDS_RECOVERY = "needs-recovery"
    NEEDS_REBOOT = "needs-reboot"
    NEEDS_ADDRESS = "needs-address"
    BRIDGE_ACTIVE = "bridge-active"
    UNSUPPORTED_HW = "unsupported-hw"
    UNSUPPORTED_OS = "unsupported-os"
    WEDGED = "wedged"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`todo` is "" where there is nothing to do."""

    word: Word
    reason: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The other end of a cable: a port of a node that was asked too."""

    node: str
    machine: Machine
    port: Port


NO_TODO = "none is needed: hidden states travel by ZeroMQ"
JACCL_GID = 1
RESTART = "restart the machine; running work on it ends"
REPLUG = (
    "pull the Thunderbolt cable and put it in again two minutes later; if that does not help,"
    " restart the machine"
)


def of_machine(machine: Machine) -> Verdict | None:
    """What stands in the way of all its ports, or None."""
    if machine.system != "Darwin":
        return _other_system(machine)
    modern = has_thunderbolt_5(machine)
    if modern is False:  # before its system: no update would help
        reason = f"{_model(machine)} has no Thunderbolt 5, and RDMA needs it"
        return Verdict(Word.UNSUPPORTED_HW, reason, NO_TODO)
    version = version_of(machine.version)
    if version and version[:2] < FIRST_VERSION:
        first = ".".join(map(str, FIRST_VERSION))
        reason = f"macOS {machine.version} has no RDMA over Thunderbolt, which came with {first}"
        return Verdict(Word.UNSUPPORTED_OS, reason, f"update to macOS {first} or later")
    for tool in ("ibv_devices", "ibv_devinfo"):
        if machine.tools.get(tool, "").startswith("hangs"):
            reason = f"`{tool}` {machine.tools[tool]}: the RDMA driver is wedged"
            return Verdict(Word.WEDGED, reason, REPLUG)
    if machine.rdma == "disabled":
        return _disabled(machine, modern)
    return None if any(port.device for port in machine.ports) else _without_devices(machine, modern)


def of_port(machine: Machine, port: Port, peer: End | None = None) -> Verdict:
    """`peer` is what is at the other end, where that is a node that answered."""
    if verdict := of_machine(machine):
        return verdict
    if is_port_without_rdma(machine, port):
        reason = "the port beside Ethernet does no RDMA on a Mac Studio"
        return Verdict(Word.UNSUPPORTED_HW, reason, "put the cable into another port")
    if port.connected == "no":
        return Verdict(Word.LINK_DOWN, "no cable")
    if port.connected == "yes" and not port.peer_domain:
        return Verdict(Word.LINK_DOWN, "what is connected is not a Mac")
    if not port.device:
        return _without_device(machine, port)
    if port.state != "active":
        return _down(machine, port, peer)
    return _active(machine, port, peer)


def _other_system(machine: Machine) -> Verdict:
    if not machine.system:
        return Verdict(Word.UNKNOWN, "it is not known which system this is")
    reason = f"MLX has RDMA (JACCL) on macOS only, and this is {machine.system}"
    if machine.system == "Linux":
        reason += (
            "; its other back ends are TCP, MPI and, with CUDA, NCCL, which may use RDMA itself"
        )
    return Verdict(Word.UNSUPPORTED_OS, reason, NO_TODO)


def _disabled(machine: Machine, modern: bool | None) -> Verdict:
    if modern:
        todo = "enable it in Recovery: `shardctl rdma enable` prints the steps"
        return Verdict(Word.NEEDS_RECOVERY, "RDMA is off in macOS", todo)
    reason = f"RDMA is off, and whether {_model(machine)} has Thunderbolt 5 is not known"
    return Verdict(
        Word.UNKNOWN, reason, "look at System Information ▸ Thunderbolt/USB4: Up to 80 Gb/s"
    )


def _without_devices(machine: Machine, modern: bool | None) -> Verdict:
    if machine.rdma != "enabled":
        how = machine.tools.get("rdma_ctl", "was not asked")
        return Verdict(Word.UNKNOWN, f"whether RDMA is on is not known: `rdma_ctl status` {how}")
    how = machine.tools.get("ibv_devices", "was not asked")
    if how != "ok":
        return Verdict(
            Word.UNKNOWN, f"which RDMA devices there are is not known: `ibv_devices` {how}"
        )
    if modern:
        reason = (
            "RDMA is on, but there is no RDMA device: not restarted since, or the driver is wedged"
        )
        return Verdict(Word.NEEDS_REBOOT, reason, RESTART)
    reason = (
        f"RDMA is on without a device, and whether {_model(machine)} has Thunderbolt 5 is not known"
    )
    return Verdict(Word.UNKNOWN, reason, "without Thunderbolt 5 that is all there will ever be")


def _without_device(machine: Machine, port: Port) -> Verdict:
    if port.interface:
        reason = f"{port.interface} has no RDMA device, other ports have"
        return Verdict(Word.NEEDS_REBOOT, reason, RESTART)
    how = machine.tools.get("networksetup", "was not asked")
    return Verdict(
        Word.UNKNOWN, f"which interface this port is, is not known: `networksetup` {how}"
    )


def _down(machine: Machine, port: Port, peer: End | None) -> Verdict:
    if not port.state:
        how = machine.tools.get("ibv_devinfo", "was not asked")
        return Verdict(
            Word.UNKNOWN, f"the state of {port.device} is not known: `ibv_devinfo` {how}"
        )
    if why := _peer_without(port, peer):
        todo = "nothing on this node; see the other end"
        return Verdict(Word.PEER_DISABLED, why, todo)
    if port.bridge:
        return _bridged(port)
    if not port.connected:
        return Verdict(Word.LINK_DOWN, f"{port.device} is {port.state}", "check the cable")
    reason = f"{port.device} is {port.state}, though both ends have RDMA"
    return Verdict(Word.LINK_DOWN, reason, REPLUG)


def _peer_without(port: Port, peer: End | None) -> str:
    """Why the other end does no RDMA, or ""."""
    if peer is not None:
        if verdict := of_machine(peer.machine):
            return f"{peer.node}: {verdict.reason}"
        if is_port_without_rdma(peer.machine, peer.port):
            return f"{peer.node}: the cable is in the port that does no RDMA on a Mac Studio"
        return ""
    if port.peer_domain and model_has_thunderbolt_5(port.peer_model) is False:
        return f"the Mac at the other end ({port.peer_model}) has no Thunderbolt 5"
    if port.peer_domain and not port.peer_offers_rdma:
        return f"the Mac at the other end ({port.peer_model or 'unknown'}) does not announce RDMA"
    return ""


def _bridged(port: Port) -> Verdict:
    reason = (
        f"{port.interface} is a member of {port.bridge}; RDMA through a bridge fails (errno 22)"
    )
    return Verdict(Word.BRIDGE_ACTIVE, reason, "`shardctl rdma enable --fix` takes it out")


def _active(machine: Machine, port: Port, peer: End | None) -> Verdict:
    if port.bridge:
        return _bridged(port)
    todo = "`shardctl rdma enable --fix` gives it one"
    if not port.ipv4_gid and (port.gids or not port.addresses):
        what = "has published none of its IPv4 addresses" if port.addresses else "has none"
        reason = f"JACCL needs an IPv4 address on {port.interface}, which {what}"
        return Verdict(Word.NEEDS_ADDRESS, reason, todo)
    if peer is not None and not share_subnet(port, peer.port):
        reason = f"{port.interface} and {peer.port.interface} of {peer.node} share no IPv4 subnet"
        return Verdict(Word.NEEDS_ADDRESS, reason, todo)
    notes = [note for note in (_slow(port), _index(port), _builds(machine, peer)) if note]
    return Verdict(Word.READY, "; ".join(notes) or "ready")


def share_subnet(port: Port, other: Port) -> bool:
    """Whether the address that JACCL would take of each is in the subnet of the other. True where
    one of them is not known: then that is what is wrong.
    """
    mine, theirs = jaccl_address(port), jaccl_address(other)
    if mine is None or theirs is None:
        return True
    return mine.ip in theirs.network and theirs.ip in mine.network


def jaccl_address(port: Port) -> IPv4Interface | None:
    """With its prefix. JACCL takes the first GID that is an IPv4 address."""
    wanted = port.ipv4_gid.removeprefix("::ffff:")
    addresses = [IPv4Interface(address) for address in port.addresses]
    return next((one for one in addresses if not wanted or str(one.ip) == wanted), None)


def _slow(port: Port) -> str:
    if 0 < port.speed <= THUNDERBOLT_4:
        return f"ready, but the link runs at {port.speed} Gb/s: the cable or the peer limits it"
    return ""


def _index(port: Port) -> str:
    """JACCL sends from the GID with number 1, whichever it found the IPv4 one at (MLX 0.32)."""
    index = port.gids.index(port.ipv4_gid) if port.ipv4_gid else JACCL_GID
    if index == JACCL_GID:
        return ""
    return f"its IPv4 GID is number {index} where JACCL uses {JACCL_GID}: it may fail (errno 22)"


def _builds(machine: Machine, peer: End | None) -> str:
    if peer is None or not machine.build or not peer.machine.build:
        return ""
    if machine.build == peer.machine.build:
        return ""
    return (
        f"macOS builds differ ({machine.build} here, {peer.machine.build} on {peer.node}); "
        "RDMA between different builds is not reliable"
    )


def _model(machine: Machine) -> str:
    return machine.model or machine.name or "this Mac"
