"""What is known of a machine and of its Thunderbolt ports. Plain values, which travel as maps.

"" and 0 mean that it is not known, never that it is not so: a tool that is missing, hangs or says
something new must not look like a "no".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Interface
from typing import Any, get_origin, get_type_hints

MOST_PORTS = 64
MOST_TEXT = 400  # characters of any one value
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


class FactsError(ValueError):
    """A map that is not the facts of a machine. The sender's fault."""


class UnreadableError(ValueError):
    """A tool ended well, but what it said is not what it says."""


@dataclass(frozen=True, slots=True)
class Port:
    """One Thunderbolt receptacle, or an RDMA device that belongs to none that is known.

    `domain` is the UUID of its own controller, `peer_domain` that of the host at the other end of
    the cable ("" where there is none); `peer_offers_rdma` whether that host announces RDMA.
    `connected` is "yes", "no" or "". Speeds are in Gb/s: `speed` that of the link, `most` what the
    idle port says it can do. `state` is that of the RDMA device: active, down, or what it says.
    `addresses` are the interface's IPv4 addresses with prefix length, `bridge` the bridge that it
    is a member of.
    """

    receptacle: str = ""
    domain: str = ""
    interface: str = ""
    device: str = ""
    state: str = ""
    connected: str = ""
    speed: int = 0
    most: int = 0
    peer_domain: str = ""
    peer_model: str = ""
    peer_offers_rdma: bool = False
    gids: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    bridge: str = ""

    @property
    def ipv4_gid(self) -> str:
        """The first GID that JACCL can use, or ""."""
        return next((gid for gid in self.gids if gid.startswith("::ffff:")), "")


def device_of(interface: str) -> str:
    """An RDMA device is called after its interface. Names change with boots: nothing keeps them."""
    return f"rdma_{interface}"


@dataclass(frozen=True, slots=True)
class Machine:
    """`system` is Darwin, Linux, …; `model` as Mac16,11; `name` as "Mac Studio". `boot` names the
    boot. `rdma` is the operating system's flag: enabled, disabled, or "". `tools` says of each tool
    how it went: ok, missing, hangs, or in words what it did instead.
    """

    system: str = ""
    version: str = ""
    build: str = ""
    model: str = ""
    name: str = ""
    boot: str = ""
    rdma: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    ports: list[Port] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_wire(cls, facts: Mapping[str, Any]) -> Machine:
        """Raise FactsError unless these are exactly the fields of a machine, each of its type."""
        ports = facts.get("ports")
        if not isinstance(ports, list) or len(ports) > MOST_PORTS:
            raise FactsError(f"ports is not a list of at most {MOST_PORTS}")
        return cls(**{**_checked(cls, facts), "ports": [_port(port) for port in ports]})


def _port(facts: Any) -> Port:
    """Its names get into commands, and its addresses are reckoned with."""
    port = Port(**_checked(Port, facts))
    for name in (port.interface, port.device, port.bridge):
        if name and not NAME.fullmatch(name):
            raise FactsError(f"{name!r:.40} is not the name of an interface")
    try:
        for address in port.addresses:
            IPv4Interface(address)
    except ValueError as error:
        raise FactsError(str(error)) from error
    return port


def _checked(cls: type, facts: Any) -> dict[str, Any]:
    """A map whose keys are the fields of `cls`, with values of their types; lists and maps are of
    text.
    """
    names = {one.name for one in fields(cls)}
    if not isinstance(facts, Mapping) or set(facts) != names:
        raise FactsError(f"not the fields of a {cls.__name__.lower()}")
    hints = get_type_hints(cls)
    for name, value in facts.items():
        kind = get_origin(hints[name]) or hints[name]
        if type(value) is not kind:
            raise FactsError(f"{name} is {type(value).__name__}, not {kind.__name__}")
        if name != "ports" and not _are_plain(value):
            raise FactsError(f"{name} has something in it that is not short text")
    return dict(facts)


def _are_plain(value: Any) -> bool:
    """Whether this is short text, a number, or a small list or map of short text."""
    if isinstance(value, list | dict):
        inner = [*value, *(value.values() if isinstance(value, dict) else ())]
        return (
            len(inner) <= 2 * MOST_PORTS
            and all(type(one) is str for one in inner)
            and all(map(_are_plain, inner))
        )
    return len(value) <= MOST_TEXT if isinstance(value, str) else 0 <= value < 1 << 31
