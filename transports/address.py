"""Where a link ends: `tcp://host:port`, `ipc:///path`, `memory://name`.

IPv6 hosts stand in brackets. Wildcards are refused: a receiver says on which interface it listens.
Port 0 lets the system choose.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass

from transports.errors import AddressError

SCHEMES = ("tcp", "ipc", "memory")
_MAX_IPC_PATH = 103  # sun_path on macOS, the shorter of the two


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address. `host` and `port` belong to tcp; `name` is the path of ipc or the name of
    memory.
    """

    scheme: str
    host: str = ""
    port: int = 0
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """AddressError says what is wrong and what to write instead."""
        scheme, separator, rest = text.partition("://")
        if not separator:
            raise AddressError(text, "it has no scheme", "write for example tcp://10.0.0.1:5701")
        if scheme not in SCHEMES:
            known = ", ".join(f"{s}://" for s in SCHEMES)
            raise AddressError(text, f"unknown scheme {scheme!r}", f"known ones are {known}")
        if scheme == "tcp":
            return cls(scheme, *_host_and_port(text, rest))
        if not rest or "\0" in rest:
            raise AddressError(text, "there is no name", f"write {scheme}://" + "NAME")
        if scheme == "ipc" and (not os.path.isabs(rest) or len(os.fsencode(rest)) > _MAX_IPC_PATH):
            raise AddressError(
                text,
                "not an absolute path of at most 103 bytes",
                "write for example ipc:///run/shardbus/stage.sock",
            )
        return cls(scheme, name=rest)

    @property
    def is_loopback(self) -> bool:
        """True when no other machine can reach it. A host name other than localhost counts as
        reachable.
        """
        if self.scheme != "tcp" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_name(self) -> bool:
        """True for a host name that has yet to be looked up."""
        return self.scheme == "tcp" and self.host != "localhost" and not _is_ip(self.host)

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def resolved(self) -> Address:
        """The same with a host name turned into an IP address, as binding needs it."""
        if self.scheme != "tcp" or _is_ip(self.host):
            return self
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            raise AddressError(
                str(self),
                f"host {self.host!r} is not known ({e})",
                "give an IP address of this machine",
            ) from e
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # localhost is 127.0.0.1 first
        return Address("tcp", str(found[0][4][0]), self.port)

    def __str__(self) -> str:
        if self.scheme != "tcp":
            return f"{self.scheme}://{self.name}"
        host = f"[{self.host}]" if self.is_ipv6 else self.host
        return f"tcp://{host}:{self.port}"


def _host_and_port(text: str, rest: str) -> tuple[str, int]:
    host, separator, port_text = rest.rpartition(":")
    example = "write for example tcp://10.0.0.1:5701 or tcp://[fd00::1]:5701"
    if not separator or not host or not (port_text.isascii() and port_text.isdigit()):
        raise AddressError(text, "it is not host:port with a number as port", example)
    port = int(port_text)
    if port > 65535:
        raise AddressError(text, f"port {port} is above 65535", "choose a port from 1024 to 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (":" in host) != bracketed or (bracketed and not _is_ip(host)):
        raise AddressError(text, "an IPv6 address stands in brackets, and only that", example)
    if host == "*" or (_is_ip(host) and ipaddress.ip_address(host).is_unspecified):
        raise AddressError(
            text,
            "it would listen on every interface",
            "give the address of one: 127.0.0.1, or the one the peers reach this machine by",
        )
    if not host or any(c.isspace() or c in "/;@*?#[]" for c in host):
        raise AddressError(text, f"{host!r} is not a host", example)
    return host, port


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
