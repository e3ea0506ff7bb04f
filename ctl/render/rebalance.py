"""A change of layout: what it is, what it promises, and what it was like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctl.render.table import Column, Style, clean, table
from ctl.render.units import latency, number, rate, size

Row = Mapping[str, Any]


def _moves(row: Row) -> str:
    return f"{row.get('moves') or 0:+d}" if row.get("moves") else "-"


def _memory(row: Row) -> str:
    """What it needs for weights and KV, of what it has."""
    stage = row.get("stage")
    if stage is None:
        return "-"
    needed = (stage.get("weights_bytes") or 0) + (stage.get("kv_bytes") or 0)
    return f"{size(needed)} of {size(stage.get('memory_bytes'))}"


COLUMNS = (
    Column("NODE", lambda row: clean(row.get("node"))),
    Column("NOW", lambda row: clean(row.get("now"))),
    Column("NEW", lambda row: clean(row.get("new"))),
    Column("MOVES", _moves, keep=1, right=True),
    Column("LOADS", lambda row: size(row.get("load_bytes")), keep=2, right=True),
    Column("MEMORY", _memory, keep=3, right=True),
)


def rebalance_text(data: Row, style: Style) -> str:
    """The nodes before and after; then what is predicted, or what it was like."""
    if not data.get("changed") and not data.get("dry_run"):
        return "nothing changes: the layout is the best there is, or as good within 1%"
    stages = {stage.get("node"): stage for stage in data.get("stages") or []}
    rows = [{**row, "stage": stages.get(row.get("node"))} for row in data.get("nodes") or []]
    lines = [table(COLUMNS, rows, style), ""]
    lines += _outcome(data) if data.get("epoch") is not None else _prediction(data)
    lines += [
        f"left out: {clean(row.get('node'))}: {clean(row.get('why'))}"
        for row in data.get("left_out") or []
    ]
    return "\n".join(lines)


def _prediction(data: Row) -> list[str]:
    present = data.get("present") or {}
    lines = []
    if not data.get("changed"):
        lines.append("nothing would change: the layout is the best there is, or as good within 1%")
    one, full = "tokens_per_second", "tokens_per_second_full"
    lines.append(
        f"predicted: one stream {rate(present.get(one))} → {rate(data.get(one))} tokens/s, "
        f"stages full {rate(present.get(full))} → {rate(data.get(full))} tokens/s"
    )
    lines.append(
        f"loads {size(data.get('load_bytes'))} in about {latency(data.get('load_seconds'))}, "
        f"copies {size(data.get('kv_bytes'))} of KV in about {latency(data.get('copy_seconds'))} "
        f"(computed again: {latency(data.get('replay_seconds'))}), then one gap of about "
        f"{latency(data.get('gap_seconds'))}"
    )
    if data.get("context") == 0:
        lines.append("KV of the whole context does not fit: requests get what memory is left")
    if assumed := data.get("hops_assumed"):
        lines.append(f"{number(assumed)} links between nodes are not in use, their times assumed")
    return lines


def _outcome(data: Row) -> list[str]:
    phases = data.get("seconds") or {}
    spent = ", ".join(f"{clean(name)} {latency(seconds)}" for name, seconds in phases.items())
    copied = f"{size(data.get('copied_bytes'))} of KV copied"
    lines = [
        f"epoch {clean(data.get('epoch'))}: {spent}",
        f"{size(data.get('loaded_bytes'))} of weights loaded, "
        f"{clean(data.get('why')) if data.get('replayed') else copied}",
    ]
    meanwhile = f"{number(data.get('tokens'))} tokens meanwhile"
    gap = data.get("longest_gap")
    if gap:
        meanwhile += (
            f"; the longest gap of a client {latency(gap.get('seconds'))}, the median of its gaps "
            f"{latency(gap.get('median_seconds'))}"
        )
    return [*lines, meanwhile]
