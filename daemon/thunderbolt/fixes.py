"""What can be mended while a machine runs: the Thunderbolt bridge, and addresses.

Commands only: nothing here runs them. All need root, none outlives a restart but the switch of the
bridge's service, and each has what undoes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface

from daemon.thunderbolt.cables import Cable, cables
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.hardware import is_port_without_rdma
from daemon.thunderbolt.verdicts import End, jaccl_address, of_machine, share_subnet

Command = list[str]
BRIDGE_SERVICE = "Thunderbolt Bridge"
LINK_LOCAL = IPv4Interface("169.254.0.0/16").network
PRIVATE = (
    LINK_LOCAL,
    *(IPv4Interface(one).network for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
)
POOL = IPv4Interface("169.254.200.0/22").network  # of which each cable without any has four
OF_CABLE = 30


@dataclass(frozen=True, slots=True)
class Fix:
    """`commands` in their order, and those that take them back, in theirs."""

    node: str
    why: str
    commands: list[Command]
    undo: list[Command]


def fixes(machines: Mapping[str, Machine]) -> list[Fix]:
    """For all cables between these nodes that such commands can make ready, bridges first."""
    lines = [cable for cable in cables(machines) if _can_be(cable.a) and _can_be(cable.b)]
    found = [fix for cable in lines for end in (cable.a, cable.b) if (fix := _bridge(end))]
    free = _free(machines)
    for cable in lines:
        found += _addresses(cable, free)
    return found


def text(command: Command) -> str:
    """As it is written in a shell."""
    return shlex.join(command)


def _can_be(end: End) -> bool:
    """Whether nothing stands in the way but what is mended here."""
    apart = of_machine(end.machine) or is_port_without_rdma(end.machine, end.port)
    return not apart and bool(end.port.device and end.port.interface)


def _bridge(end: End) -> Fix | None:
    port = end.port
    if not port.bridge:
        return None
    switch = ["sudo", "networksetup", "-setnetworkserviceenabled", BRIDGE_SERVICE]
    member = ["sudo", "ifconfig", port.bridge]
    return Fix(
        end.node,
        f"{port.interface} is a member of {port.bridge}; without the service it stays out of it",
        [[*switch, "off"], [*member, "deletem", port.interface]],
        [[*member, "addm", port.interface], [*switch, "on"]],
    )


def _free(machines: Mapping[str, Machine]) -> list[tuple[IPv4Interface, IPv4Interface]]:
    """Pairs of addresses that nobody here has, to be taken from the end of the list."""
    taken = [
        IPv4Interface(address).ip
        for machine in machines.values()
        for port in machine.ports
        for address in port.addresses
    ]
    pairs = []
    for network in POOL.subnets(new_prefix=OF_CABLE):
        if not any(address in network for address in taken):
            first, second = (IPv4Interface(f"{ip}/{OF_CABLE}") for ip in network.hosts())
            pairs.append((first, second))
    return pairs[::-1]


def _addresses(cable: Cable, free: list[tuple[IPv4Interface, IPv4Interface]]) -> Sequence[Fix]:
    """Both ends need one that JACCL sees, in one subnet."""
    a, b = jaccl_address(cable.a.port), jaccl_address(cable.b.port)
    if a is None and b is None:
        if not free:
            return []
        first, second = free.pop()
        return [_give(cable.a, first), _give(cable.b, second)]
    if a is not None and b is not None:
        if share_subnet(cable.a.port, cable.b.port):
            return []
        # JACCL takes the first address that there is: one more beside it would change nothing.
        if b.ip in LINK_LOCAL:
            return _join(cable.b, a, instead=b)
        return _join(cable.a, b, instead=a) if a.ip in LINK_LOCAL else []
    if b is None and a is not None:
        return _join(cable.b, a)
    return _join(cable.a, b) if b is not None else []


def _join(end: End, other: IPv4Interface, instead: IPv4Interface | None = None) -> Sequence[Fix]:
    """Another address of the same subnet: on a cable there are only two. What the other end says
    must not draw the traffic of other networks to the cable.
    """
    if not any(other.network.subnet_of(network) for network in PRIVATE):
        return []
    step = 1 if other.ip + 1 in other.network and other.ip + 1 < other.network[-1] else -1
    return [_give(end, IPv4Interface(f"{other.ip + step}/{other.network.prefixlen}"), instead)]


def _give(end: End, address: IPv4Interface, instead: IPv4Interface | None = None) -> Fix:
    inet = ["sudo", "ifconfig", end.port.interface, "inet"]
    add = [*inet, str(address.ip), "netmask", str(address.netmask), "alias"]
    drop = [*inet, str(address.ip), "-alias"]
    if instead is None:
        why = f"{end.port.interface} needs an IPv4 address"
        return Fix(end.node, why, [add], [drop])
    back = [*inet, str(instead.ip), "netmask", str(instead.netmask), "alias"]
    why = f"{end.port.interface} needs an address in the subnet of the other end"
    return Fix(end.node, why, [[*inet, str(instead.ip), "-alias"], add], [drop, back])
