"""From a written value to a checked one: one small function per kind of setting."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from daemon.config.errors import did_you_mean
from daemon.config.values import Value

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")
_SIZE = re.compile(r"([0-9]+|[0-9]+(?:\.[0-9]+)?(?= ?[KMGT])) ?([KMGT]i?B)?\Z")
_ADDRESS = re.compile(r"tcp://(\[[^\[\]\s]+\]|[^\[\]:/\s]+):([0-9]{1,5})\Z")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Plain ZeroMQ is for cables and private networks; nothing public may be named.
_PRIVATE = [
    *map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(ipaddress.ip_network, ("100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")),
    *map(ipaddress.ip_network, ("fc00::/7", "fe80::/10", "::1/128")),
]


class HostPort(NamedTuple):
    """The two halves of `tcp://host:port`; an IPv6 host comes without its brackets."""

    host: str
    port: int


def split_address(text: str) -> HostPort:
    """Take a `tcp://host:port` apart; ValueError when it is not one."""
    match = _ADDRESS.match(text)
    if not match or int(match[2]) > 65535:
        raise ValueError(f"{text!r} is not tcp://host:port")
    return HostPort(match[1].strip("[]"), int(match[2]))


def node_name(value: Value) -> str:
    return _matching(value, NODE_NAME, "letters, digits, - and _, at most 63", "studio")


def node_names(value: Value) -> tuple[str, ...]:
    names = tuple(node_name(item) for item in value.items())
    for item, name in zip(value.items(), names, strict=True):
        if names.count(name) > 1:
            raise item.error(f"names '{name}' twice", "a node has one place", "remove one of them")
    return names


def model_ref(value: Value) -> str:
    """A name under `models`, an embedded model's name, or a folder."""
    text = value.text()
    if not text or not text.isprintable():
        raise value.error("is empty", "it must be a model's name or folder", "remove the line")
    return text


def model_folders(value: Value) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for key, folder in value.entries():
        name = _matching(key, _MODEL_NAME, "letters, digits and . _ / -", "qwen3-32b")
        found[name] = path(folder)
    return MappingProxyType(found)


def path(value: Value) -> Path:
    """Relative to the file's folder, or to the working directory for flags and variables."""
    text = value.text()
    if not text or "\0" in text:
        raise value.error("is empty", "it must be a folder", "write an absolute path")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise value.error(f"is '{text}'", "that home is unknown here", "write an absolute path")
    return Path(os.path.normpath(value.base / expanded))


def size(value: Value) -> int:
    """Bytes of `48GB`, `24GiB`, or a plain number of bytes."""
    text = value.word()
    match = _SIZE.match(text)
    if not match:
        why = "a size is a number and one of KB MB GB TB KiB MiB GiB TiB"
        raise value.error(f"is '{text}'", why, "write for example 48GB or 24GiB")
    number, unit = match[1], match[2] or ""
    base = 1024 if "i" in unit else 1000
    count = int(float(number) * base ** (" KMGT".index(unit[0]) if unit else 0))
    if not 1 << 20 <= count <= 1 << 50:
        why = "it must lie between 1MiB and 1024TiB"
        raise value.error(f"is {text}", why, "give it a unit, for example 48GB or 24GiB")
    return count


def size_or_nothing(value: Value) -> int:
    """As `size`, or 0."""
    return 0 if value.word() == "0" else size(value)


def address(any_port: bool) -> Callable[[Value], str]:
    """`tcp://host:port` with an IP address of one interface, or localhost; never all of them."""

    def parse(value: Value) -> str:
        text = value.text()
        example = "tcp://10.0.0.2:" + ("0" if any_port else "5570")
        try:
            host, port = split_address(text)
        except ValueError:
            why = "an address is tcp://HOST:PORT with a port up to 65535"
            raise value.error(f"is '{text}'", why, f"write for example {example}") from None
        if port == 0 and not any_port:
            raise value.error(
                f"is '{text}'", "every node must know this port", f"write for example {example}"
            )
        if host == "localhost":
            return f"tcp://127.0.0.1:{port}"
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            why = "the host must be an IP address, so that it can be checked against the networks"
            raise value.error(f"is '{text}'", why, f"write for example {example}") from None
        if ip.is_unspecified or ip.is_multicast:
            why = "an address must name one interface, never all of them"
            raise value.error(f"is '{text}'", why, f"write for example {example}")
        return f"tcp://[{host}]:{port}" if ip.version == 6 else f"tcp://{host}:{port}"

    return parse


def networks(value: Value) -> tuple[Network, ...]:
    """Private networks in CIDR form."""
    return tuple(_network(item) for item in value.items())


def _network(value: Value) -> Network:
    text = value.text()
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        why = "a network is ADDRESS/BITS"
        raise value.error(f"has '{text}'", why, "write for example 10.0.0.0/24") from None
    if text != str(network):
        why = "a network is written with its bits, and its host part is zero"
        raise value.error(f"has '{text}'", why, f"did you mean '{network}'?")
    if not is_private(network):
        why = "plain ZeroMQ is neither encrypted nor authenticated, so not for public networks"
        raise value.error(f"has '{text}'", why, "name the private network between the nodes")
    return network


def is_private(network: Network) -> bool:
    """Whether plain ZeroMQ may be allowed there at all."""
    return any(
        outer.prefixlen <= network.prefixlen and network.network_address in outer
        for outer in _PRIVATE
    )


def counts(value: Value) -> tuple[int, ...]:
    """A list of whole numbers above 0, not empty."""
    found = tuple(item.integer() for item in value.items())
    if not found or min(found) < 1:
        why = "every stage holds at least one layer"
        raise value.error(f"is {list(found)}", why, "write for example [20, 12], or remove it")
    return found


def count(low: int, high: int) -> Callable[[Value], int]:
    """A whole number in that range."""

    def parse(value: Value) -> int:
        number = value.integer()
        if not low <= number <= high:
            why = f"it must lie between {low} and {high}"
            raise value.error(f"is {number}", why, "choose a number in that range")
        return number

    return parse


def seconds(low: float, high: float) -> Callable[[Value], float]:
    def parse(value: Value) -> float:
        number = value.number()
        if not low <= number <= high:
            why = f"it must lie between {low:g} and {high:g} seconds"
            raise value.error(f"is {number:g}", why, "choose a value in that range")
        return number

    return parse


def choice(*known: str) -> Callable[[Value], str]:
    def parse(value: Value) -> str:
        text = value.choice()
        if text not in known:
            todo = did_you_mean(text, known, f"write '{known[0]}'")
            raise value.error(f"is '{text}'", f"it must be one of {', '.join(known)}", todo)
        return text

    return parse


def boolean(value: Value) -> bool:
    return value.boolean()


def _matching(value: Value, pattern: re.Pattern[str], rule: str, example: str) -> str:
    text = value.text()
    if not pattern.match(text):
        raise value.error(f"is '{text}'", f"a name has {rule}", f"write for example '{example}'")
    return text
