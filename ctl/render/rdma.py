"""RDMA: the ports of each node, what a group of them would lack, and the hops as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctl.render.table import Column, Style, clean, shorten, table
from ctl.render.units import latency

Row = Mapping[str, Any]
SILENT = {"verdict": "unknown", "reason": "no answer", "ports": []}


def _speed(row: Row) -> str:
    if row.get("speed"):
        return f"{clean(row['speed'])} Gb/s"
    return f"({clean(row['most'])})" if row.get("most") else "-"


def _peer(row: Row) -> str:
    return clean(row.get("peer") or row.get("peer_model"))


PORT_COLUMNS = (
    Column("NODE", lambda row: clean(row.get("node"))),
    Column("PORT", lambda row: clean(row.get("receptacle")), right=True),
    Column("IF", lambda row: clean(row.get("interface")), keep=4),
    Column("DEVICE", lambda row: clean(row.get("device")), keep=3),
    Column("STATE", lambda row: clean(row.get("state")), keep=5),
    Column("SPEED", _speed, keep=6, right=True),
    Column("PEER", _peer, keep=2),
    Column("IPV4 GID", lambda row: clean(row.get("ipv4_gid")), keep=7),
    Column("BRIDGE", lambda row: clean(row.get("bridge")), keep=8),
    Column("VERDICT", lambda row: clean(row.get("verdict")), state=True),
    Column("REASON", lambda row: clean(row.get("reason"))),
    Column("ADDRESSES", lambda row: " ".join(map(clean, row.get("addresses") or "-")), wide=True),
    Column("MODEL", lambda row: clean(row.get("model")), keep=9, wide=True),
    Column("MACOS", lambda row: clean(row.get("version")), keep=9, wide=True),
    Column("BUILD", lambda row: clean(row.get("build")), keep=9, wide=True),
    Column("RDMA", lambda row: clean(row.get("rdma")), keep=9, wide=True),
    Column("DOMAIN", lambda row: clean(row.get("domain")), keep=9, wide=True),
    Column("BOOT", lambda row: clean(row.get("boot")), keep=9, wide=True),
)


def port_rows(data: Row) -> list[dict[str, Any]]:
    """One per port, one for a node without any or without an answer."""
    rows = []
    for node in data.get("nodes") or []:
        of_all = {key: value for key, value in node.items() if key not in ("ports", "tools")}
        ports = node.get("ports") or [{"reason": node.get("reason") or "no Thunderbolt port found"}]
        rows += [{"verdict": "unknown", **of_all, **_said(port)} for port in ports]
    return rows + [{"node": name, **SILENT} for name in data.get("silent") or []]


def _said(port: Row) -> dict[str, Any]:
    """What is null of a port goes by what holds of its machine."""
    return {key: value for key, value in port.items() if value is not None}


def status_text(data: Row, style: Style) -> str:
    """The table, what to do, what a group lacks, and the hops."""
    rows = port_rows(data)
    width = style.width or 10_000
    blocks = [table(PORT_COLUMNS, rows, style) if rows else "no nodes have joined"]
    todos = dict.fromkeys(
        f"{clean(row.get('node'))}: {clean(row['todo'])}" for row in rows if row.get("todo")
    )
    blocks += [shorten(f"→ {todo}", width) for todo in todos]
    warnings = [f"! {clean(warning)}" for warning in data.get("warnings") or []]
    blocks += [style.paint(shorten(warning, width), "yellow") for warning in warnings]
    blocks += [shorten(line, width) for line in (*_group(data), *_policy(data), *_hops(data))]
    return "\n".join(blocks)


def _group(data: Row) -> list[str]:
    """Whether JACCL could connect these nodes as the pipeline has them."""
    of = data.get("jaccl") or {}
    order = " → ".join(map(clean, of.get("order") or []))
    if of.get("shape"):
        return [f"JACCL could connect {order} ({clean(of['shape'])})"]
    return [f"JACCL lacks: {clean(lack)}" for lack in of.get("missing") or []]


def _policy(data: Row) -> list[str]:
    """What the coordinator makes of it."""
    policy = data.get("policy") or {}
    group = policy.get("group")
    if not policy.get("enabled"):
        return ["RDMA is not enabled: `shardctl rdma enable`"]
    if group is None:
        return [f"RDMA is enabled; no group: {clean(policy.get('why') or 'none is needed')}"]
    nodes = ", ".join(map(clean, group.get("nodes") or []))
    what = f"group {clean(group.get('group'))} by {clean(group.get('backend'))} of {nodes}"
    return [f"RDMA is enabled; {what}: {clean(group.get('state'))}"]


def _hops(data: Row) -> list[str]:
    """Between stages: the path, how long a frame is under way, and why it is not RDMA."""
    policy = data.get("policy") or {}
    whys = {(hop.get("from"), hop.get("to")): hop.get("why") for hop in policy.get("hops") or []}
    lines = []
    for hop in data.get("hops") or []:
        ends = (hop.get("from"), hop.get("to"))
        if "coordinator" in ends:
            continue
        why = whys.get(ends) if policy.get("enabled") else None
        text = f"{clean(ends[0])} → {clean(ends[1])}: {clean(hop.get('path'))}"
        text += f", p50 {latency(hop.get('p50'))}"
        lines.append(f"{text}; not RDMA: {clean(why)}" if why else text)
    return lines
