"""`system_profiler SPThunderboltDataType -json`: the ports, and who is at the other end.

A port is an entry with a controller of its own (`domain_uuid_key`). Whatever is behind it stands in
`_items`, at any depth when there are docks between. Only hosts have a domain UUID there; disks,
docks and displays have none. A host that offers RDMA announces a service with protocol 64087, whose
key ("rdma") comes out garbled in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from daemon.thunderbolt.facts import MOST_PORTS, MOST_TEXT, Port, UnreadableError

RDMA_PROTOCOL = 64087
DEEPEST = 8  # hubs, one behind the other; Thunderbolt allows six devices in a chain
CONNECTED = {"receptacle_connected": "yes", "receptacle_no_devices_connected": "no"}
_SPEED = re.compile(r"(\d+)\s*Gb/s")


def parse(text: str) -> tuple[str, list[Port]]:
    """What kind of Mac it is ("" when it has no ports), and its ports, by receptacle."""
    try:
        root = json.loads(text)
    except ValueError as error:
        raise UnreadableError(f"not JSON: {error}") from error
    entries = root.get("SPThunderboltDataType") if isinstance(root, dict) else None
    if not isinstance(entries, list):
        raise UnreadableError("without SPThunderboltDataType")
    hosts = [
        entry for entry in entries if isinstance(entry, dict) and _text(entry, "domain_uuid_key")
    ]
    ports = [_port(entry) for entry in hosts[:MOST_PORTS]]
    name = next((n for n in (_text(entry, "device_name_key") for entry in hosts) if n), "")
    return name, sorted(ports, key=lambda port: (len(port.receptacle), port.receptacle))


def _port(entry: Mapping[str, Any]) -> Port:
    tag = _receptacle(entry)
    words = _text(tag, "current_speed_key")
    found = _SPEED.search(words)
    speed = int(found[1]) if found else 0
    idle = words.lower().startswith("up to")
    peer = next(_hosts(entry.get("_items"), DEEPEST), {})
    connected = CONNECTED.get(_text(tag, "receptacle_status_key"), "yes" if peer else "")
    return Port(
        receptacle=_text(tag, "receptacle_id_key"),
        domain=_text(entry, "domain_uuid_key").upper(),
        connected=connected,
        speed=0 if idle or connected == "no" else speed,
        most=speed if idle else 0,
        peer_domain=_text(peer, "domain_uuid_key").upper(),
        peer_model=_text(peer, "device_name_key"),
        peer_offers_rdma=_offers_rdma(peer),
    )


def _receptacle(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A port of a Mac has one, called 1 wherever it is; some entries have none."""
    tags = [
        entry.get("receptacle_1_tag"),
        *(v for k, v in entry.items() if k.startswith("receptacle")),
    ]
    return next((tag for tag in tags if isinstance(tag, dict)), {})


def _hosts(items: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Other hosts below a port: the nearest first."""
    devices = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    yield from (item for item in devices if _text(item, "domain_uuid_key"))
    if depth:
        for item in devices:
            yield from _hosts(item.get("_items"), depth - 1)


def _offers_rdma(peer: Mapping[str, Any]) -> bool:
    services = peer.get("services_title")
    return isinstance(services, list) and any(
        isinstance(one, dict)
        and (one.get("protocol_id_key") == RDMA_PROTOCOL or one.get("service_key_key") == "rdma")
        for one in services
    )


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value[:MOST_TEXT] if isinstance(value, str) else ""
