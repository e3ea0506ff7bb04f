"""`networksetup -listallhardwareports` and `ifconfig`: names, addresses and bridges."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from daemon.thunderbolt.facts import NAME

_PORT = re.compile(r"Hardware Port:\s*Thunderbolt (\d+)\s*$")
_DEVICE = re.compile(rf"Device:\s*({NAME.pattern})\s*$")
_INTERFACE = re.compile(rf"({NAME.pattern}): flags=")
_ADDRESS = re.compile(r"\s+inet (\S+)(?: -->\s*\S+)? netmask (\S+)")
_MEMBER = re.compile(r"\s+member: (\S+)")


@dataclass(slots=True)
class Interface:
    """`addresses` are IPv4 with prefix length; `members` those of a bridge."""

    addresses: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)


def parse_hardware_ports(text: str) -> dict[str, str]:
    """Interface by receptacle number. `Thunderbolt Bridge` and `Thunderbolt Ethernet Slot 1` are
    something else.
    """
    found: dict[str, str] = {}
    receptacle = ""
    for line in text.splitlines():
        if line.startswith("Hardware Port:"):
            match = _PORT.match(line)
            receptacle = match[1] if match else ""
        elif receptacle and (match := _DEVICE.match(line)):
            found[receptacle] = match[1]
            receptacle = ""
    return found


def parse_ifconfig(text: str) -> dict[str, Interface]:
    found: dict[str, Interface] = {}
    here = Interface()
    for line in text.splitlines():
        if match := _INTERFACE.match(line):
            here = found[match[1]] = Interface()
        elif match := _ADDRESS.match(line):
            here.addresses += _interface(match[1], match[2])
        elif match := _MEMBER.match(line):
            here.members.append(match[1])
    return found


def _interface(address: str, mask: str) -> list[str]:
    """With the mask as macOS writes it (0xffff0000), or dotted; none of what is no address."""
    try:
        dotted = str(IPv4Address(int(mask, 16))) if mask.startswith("0x") else mask
        return [str(IPv4Interface(f"{address}/{dotted}"))]
    except ValueError:
        return []
