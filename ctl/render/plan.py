"""Where layers should go, and what that would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctl.render.table import Column, Style, clean, table
from ctl.render.units import latency, number, rate, size

Row = Mapping[str, Any]


def _memory(row: Row) -> str:
    needed = (row.get("weights_bytes") or 0) + (row.get("kv_bytes") or 0)
    return f"{size(needed)} of {size(row.get('memory_bytes'))}"


COLUMNS = (
    Column("STAGE", lambda row: clean(row.get("stage")), right=True),
    Column("NODE", lambda row: clean(row.get("node"))),
    Column("LAYERS", lambda row: clean(row.get("layers"))),
    Column("WEIGHTS", lambda row: size(row.get("weights_bytes")), keep=2, right=True),
    Column("KV", lambda row: size(row.get("kv_bytes")), keep=3, right=True),
    Column("MEMORY", _memory, keep=1, right=True),
    Column("STEP", lambda row: latency(row.get("seconds")), right=True),
    Column("MEASURED", lambda row: latency(row.get("measured_seconds")), right=True),
)


def plan_text(data: Row, style: Style) -> str:
    """Stages; what they promise; who is left out."""
    lines = [
        f"{clean(data.get('model'))} with {number(data.get('context'))} tokens of context, for "
        f"{clean(data.get('objective'))}",
        table(COLUMNS, data.get("stages") or [], style),
        "",
        f"one stream: {rate(data.get('tokens_per_second'))} tokens/s without guesses "
        f"({latency(data.get('round_seconds'))} a token) · stages full, a token a step: "
        f"{rate(data.get('tokens_per_second_full'))} tokens/s "
        f"({latency(data.get('slowest_seconds'))} the slowest)",
    ]
    if assumed := data.get("hops_assumed"):
        lines.append(f"{number(assumed)} links between nodes are not in use, their times assumed")
    lines += [
        f"left out: {clean(row.get('node'))}: {clean(row.get('why'))}"
        for row in data.get("left_out") or []
    ]
    return "\n".join(lines)
