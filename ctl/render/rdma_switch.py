"""What hops got when RDMA was enabled, and what a test has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctl.render.table import Column, Style, clean, shorten, table
from ctl.render.units import latency, size

Row = Mapping[str, Any]


def _rate(row: Row) -> str:
    rate = row.get("bytes_per_second")
    return f"{size(rate)}/s" if rate else "-"


HOP_COLUMNS = (
    Column("FROM", lambda row: clean(row.get("from"))),
    Column("TO", lambda row: clean(row.get("to"))),
    Column("PATH", lambda row: clean(row.get("path"))),
    Column("ROUND TRIP", lambda row: latency(row.get("round_trip_seconds")), keep=2, right=True),
    Column("BANDWIDTH", _rate, keep=2, right=True),
    Column("WHY NOT RDMA", lambda row: clean(row.get("why"))),
)


def hops_text(data: Row, style: Style) -> str:
    """The policy in a line, and each hop."""
    group = data.get("group")
    line = f"RDMA {'enabled' if data.get('enabled') else 'not enabled'}"
    if group:
        nodes = ", ".join(map(clean, group.get("nodes") or []))
        line += f" · group {clean(group.get('group'))} by {clean(group.get('backend'))}: "
        line += f"{nodes}, {clean(group.get('state'))}"
    blocks = [line]
    if data.get("hops"):
        blocks.append(table(HOP_COLUMNS, data["hops"], style))
    else:
        blocks.append("no hops: no model is loaded, or one stage holds all of it")
    width = style.width or 10_000
    for node in data.get("nodes") or []:
        if node.get("why"):
            text = shorten(f"! {clean(node.get('node'))}: {clean(node['why'])}", width)
            blocks.append(style.paint(text, "yellow"))
    return "\n".join(blocks)


def pair_text(data: Row) -> str:
    a, b, backend = clean(data.get("a")), clean(data.get("b")), clean(data.get("backend"))
    if data.get("why"):
        return f"{a} and {b}: no RDMA: {clean(data['why'])}"
    if data.get("dry_run"):
        return f"{a} and {b} would be tried by {backend}"
    told = f"{latency(data.get('round_trip_seconds'))} there and back, {_rate(data)}"
    return f"{a} and {b} by {backend}: {told}"
