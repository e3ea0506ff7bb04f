"""What this node offers to a group, from what is configured and what there is."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from daemon.config import Config
from daemon.config.parse import split_address
from daemon.supervisor.rdma.machine import Found

WORDS = {
    "off": "rdma.backend is off in its configuration",
    "nccl": "mlx's NCCL groups cannot send from one node to one other: use jaccl",
}


@dataclass(frozen=True, slots=True)
class Offered:
    """`why_not` is why there is no back end, or ""."""

    backends: tuple[str, ...]
    why_not: str


def wanted(configured: str) -> str:
    """The back end that this word of the configuration comes to, or ""."""
    return {"auto": "jaccl", "jaccl": "jaccl", "ring": "ring"}.get(configured, "")


def offered(configured: str, built: tuple[str, ...], found: Found) -> Offered:
    backend = wanted(configured)
    if not backend:
        return Offered((), WORDS[configured])
    if backend == "jaccl" and found.why_not:
        return Offered((), found.why_not)
    if backend not in built:
        why = "its mlx could not be asked what it has" if not built else f"its mlx has no {backend}"
        return Offered((), why)
    return Offered((backend,), "")


def listen_host(config: Config) -> str:
    return split_address(config.rdma.address or config.node.data_address).host


def free_address(config: Config) -> str:
    """Where the next group may listen, host:port. OSError with the reason when it cannot be."""
    host = listen_host(config)
    if ipaddress.ip_address(host).version != 4:
        raise OSError(f"mlx takes IPv4 addresses alone, not {host}: set rdma.address")
    port = split_address(config.rdma.address).port if config.rdma.address else 0
    if not port:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, 0))
            except OSError as error:
                raise OSError(f"nothing can listen at {host} ({error.strerror})") from error
            port = probe.getsockname()[1]
    return f"{host}:{port}"


def bad_host(config: Config, text: str) -> str:
    """Why a group may not use this address, or "": plain TCP goes no further than
    security.plain_networks.
    """
    host, _, port = text.rpartition(":")
    try:
        ip = ipaddress.IPv4Address(host)
        number = int(port) if port.isascii() and port.isdecimal() else 0
    except ValueError:
        return f"{text!r:.60} is not an IPv4 address and a port"
    if not 0 < number < 1 << 16:
        return f"{text!r:.60} has no port"
    if ip.is_loopback or any(ip in network for network in config.security.plain_networks):
        return ""
    return f"{host} is neither loopback nor in security.plain_networks of this node"
