"""What `shardctl rdma status` is shown, in the shapes of docs/protocol.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.thunderbolt import recovery
from daemon.thunderbolt.cables import Cable, cables, peer_of
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.matrix import matrix
from daemon.thunderbolt.verdicts import of_machine, of_port


def ports_view(machines: Mapping[str, Machine], silent: Sequence[str]) -> dict[str, Any]:
    """`machines` are those of the nodes that answered, by node."""
    found = cables(machines)
    return {
        "nodes": [node_view(node, m, found) for node, m in sorted(machines.items())],
        "silent": sorted(silent),
        "cables": [cable_view(cable) for cable in found],
        "recovery": recovery.nodes(machines),
        "warnings": warnings(machines),
    }


def node_view(node: str, machine: Machine, found: list[Cable]) -> dict[str, Any]:
    verdict = of_machine(machine)
    ports = []
    for port in machine.ports:
        peer = peer_of(node, port, found)
        of = of_port(machine, port, peer)
        ports.append(
            {
                "receptacle": port.receptacle or None,
                "interface": port.interface or None,
                "device": port.device or None,
                "state": port.state or None,
                "connected": {"yes": True, "no": False}.get(port.connected),
                "speed": port.speed or None,
                "most": port.most or None,
                "domain": port.domain or None,
                "peer": peer.node if peer else None,
                "peer_model": port.peer_model or None,
                "ipv4_gid": port.ipv4_gid.removeprefix("::ffff:") or None,
                "addresses": list(port.addresses),
                "bridge": port.bridge or None,
                "verdict": of.word.value,
                "reason": of.reason,
                "todo": of.todo or None,
            }
        )
    return {
        "node": node,
        "system": machine.system or None,
        "version": machine.version or None,
        "build": machine.build or None,
        "model": machine.model or None,
        "boot": machine.boot or None,
        "rdma": machine.rdma or None,
        "verdict": verdict.word.value if verdict else None,
        "reason": verdict.reason if verdict else None,
        "todo": (verdict.todo or None) if verdict else None,
        "tools": dict(machine.tools),
        "ports": ports,
    }


def cable_view(cable: Cable) -> dict[str, Any]:
    a, b = cable.a, cable.b
    return {
        "nodes": [a.node, b.node],
        "receptacles": [a.port.receptacle, b.port.receptacle],
        "devices": [a.port.device or None, b.port.device or None],
        "speed": min(a.port.speed, b.port.speed) or None,
        "ready": cable.ready,
    }


def group_view(order: Sequence[str], machines: Mapping[str, Machine]) -> dict[str, Any]:
    """What a group of these nodes, in this order, would be given, or what it lacks."""
    of = matrix(order, machines)
    return {
        "order": list(order),
        "shape": of.shape or None,
        "devices": of.devices,
        "coordinator": of.coordinator or None,
        "missing": of.missing,
    }


def warnings(machines: Mapping[str, Machine]) -> list[str]:
    """What is wrong with all of them together."""
    builds: dict[str, list[str]] = {}
    for node, machine in sorted(machines.items()):
        if machine.build:
            builds.setdefault(machine.build, []).append(node)
    if len(builds) < 2:
        return []
    told = ", ".join(f"{build} on {' '.join(nodes)}" for build, nodes in builds.items())
    return [f"macOS builds differ: {told}; RDMA wants the same one everywhere"]
