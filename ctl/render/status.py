"""The cluster at a glance, and its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctl.progress import move_line
from ctl.render.pipeline import not_by_rdma
from ctl.render.table import Column, Style, clean, shorten, table
from ctl.render.units import age, latency, rate, size

Row = Mapping[str, Any]


def _memory(row: Row) -> str:
    free, total = row.get("memory_free_bytes"), row.get("memory_bytes")
    return size(free) if total is None or free is None else f"{size(free)} / {size(total)}"


def _state(row: Row) -> str:
    done, total = row.get("bytes_loaded"), row.get("bytes_total")
    if row.get("state") == "loading" and total:
        return f"loading {100 * (done or 0) // total}%"
    return clean(row.get("state"))


def _dropped(row: Row) -> str:
    """Frames and spans dropped, for whatever reasons."""
    dropped = row.get("dropped")
    return clean(sum(dropped.values()) if isinstance(dropped, dict) else dropped)


def _hop_to(row: Row) -> str:
    hop = row.get("next_hop")
    return "-" if hop is None else f"{clean(hop['to'])} {clean(hop['path'])}"


def _hop_latency(row: Row) -> str:
    hop = row.get("next_hop")
    return "-" if hop is None else latency(hop.get("p50"))


NODE_COLUMNS = (
    Column("NODE", lambda row: clean(row.get("name"))),
    Column("ROLE", lambda row: clean(row.get("role")), keep=3),
    Column("STATE", _state, state=True),
    Column("LAYERS", lambda row: clean(row.get("layers"))),
    Column("WEIGHTS", lambda row: size(row.get("weights_bytes")), keep=1, right=True),
    Column("KV", lambda row: size(row.get("kv_bytes")), keep=2, right=True),
    Column("MEM FREE", _memory, keep=4, right=True),
    Column("NEXT HOP", _hop_to, keep=2),
    Column("LAT P50", _hop_latency, keep=2, right=True),
    Column("AGE", lambda row: age(row.get("uptime")), keep=5),
    Column("HOST", lambda row: clean(row.get("host")), keep=6, wide=True),
    Column("PID", lambda row: clean(row.get("pid")), keep=6, right=True, wide=True),
    Column("STAGE PID", lambda row: clean(row.get("stage_pid")), keep=6, right=True, wide=True),
    Column("RESIDENT", lambda row: size(row.get("resident_bytes")), keep=6, right=True, wide=True),
    Column("RESTARTS", lambda row: clean(row.get("restarts")), keep=6, right=True, wide=True),
    Column("FRAMES", lambda row: clean(row.get("frames")), keep=7, right=True, wide=True),
    Column("DROPPED", _dropped, keep=7, right=True, wide=True),
    Column("VERSION", lambda row: clean(row.get("version")), keep=7, wide=True),
    Column("MLX", lambda row: clean(row.get("mlx")), keep=8, wide=True),
    Column("MLX-LM", lambda row: clean(row.get("mlx_lm")), keep=8, wide=True),
    Column("DEVICE", lambda row: clean(row.get("device")), keep=8, wide=True),
    Column("COMPILED", lambda row: clean(row.get("compiled")), keep=8, wide=True),
    Column("SYSTEM", lambda row: clean(row.get("system")), keep=9, wide=True),
    Column("PYTHON", lambda row: clean(row.get("python")), keep=9, wide=True),
    Column("ADDRESS", lambda row: clean(row.get("address")), keep=9, wide=True),
)


def headline(data: Row, style: Style) -> str:
    """The cluster in one line."""
    model = data.get("model")
    if model is None:
        model_text = "no model"
    else:
        model_text = f"model {clean(model.get('name'))} ({clean(model.get('layers'))} layers)"
    state = clean(data.get("state"))
    parts = (
        f"cluster {clean(data.get('cluster'))}",
        f"epoch {clean(data.get('epoch'))}",
        model_text,
        style.state(state.upper()) if style.color else state.upper(),
        f"{clean(data.get('active'))} active / {clean(data.get('queued'))} queued",
        f"{rate(data.get('tokens_per_second'))} tok/s",
    )
    return " · ".join(parts)


def with_hops(nodes: Sequence[Row], hops: Sequence[Row]) -> list[dict[str, Any]]:
    """The nodes in the order of the pipeline (spares last), each with the hop that leaves it."""
    outgoing = {hop.get("from"): hop for hop in hops}
    rows = [{**node, "next_hop": outgoing.get(node.get("name"))} for node in nodes]
    last = len(rows)
    return sorted(
        rows,
        key=lambda row: (
            last if row.get("stage") is None else row["stage"],
            str(row.get("name")),
        ),
    )


def _draft(row: Row) -> str:
    """A draft model in one line."""
    state, speed = clean(row.get("state")), row.get("tokens_per_second")
    text = f"draft {clean(row.get('model'))} on {clean(row.get('node'))}: {state}"
    text += f", {rate(speed)} tok/s" if speed else ""
    return f"{text}, {clean(row['reason'])}" if row.get("reason") else text


def _rebalance(row: Row) -> list[str]:
    """What moves, and what the automatic mode thinks of the layout; a line each."""
    moving, decision = row.get("moving"), row.get("decision")
    lines = [f"rebalance: {move_line(moving)}"] if moving else []
    if decision:
        lines.append(f"automatic rebalance: {clean(decision.get('why'))}")
    return lines


def status_text(data: Row, style: Style) -> str:
    """Headline, nodes, and what needs attention."""
    nodes = with_hops(data.get("nodes") or [], data.get("hops") or [])
    blocks = [headline(data, style)]
    if data.get("reason"):
        reason = shorten(f"! {clean(data['reason'])}", style.width or 10_000)
        blocks.append(style.paint(reason, "yellow"))
    if nodes:
        blocks.append(table(NODE_COLUMNS, nodes, style))
    width = style.width or 10_000
    blocks += [shorten(line, width) for line in _rebalance(data.get("rebalance") or {})]
    blocks += [shorten(_draft(draft), width) for draft in data.get("drafts") or []]
    troubles = [
        f"! {clean(node.get('name'))}: {clean(node['reason'])}"
        for node in nodes
        if node.get("reason")
    ]
    troubles += [
        f"! {clean(hop.get('from'))} → {clean(hop.get('to'))}: {clean(hop['why'])}"
        for hop in data.get("hops") or []
        if hop.get("why") and hop["why"] != data.get("reason")
    ]
    troubles += [
        f"! {clean(hop.get('from'))} → {clean(hop.get('to'))}: {not_by_rdma(hop)}"
        for hop in data.get("hops") or []
        if hop.get("fallbacks") and hop.get("not_rdma")
    ]
    troubles += [f"! {clean(warning)}" for warning in data.get("warnings") or []]
    said = dict.fromkeys(t for t in troubles if t != f"! {clean(data.get('reason'))}")
    blocks += [style.paint(trouble, "yellow") for trouble in said]
    return "\n".join(blocks)


def nodes_text(nodes: Sequence[Row], style: Style) -> str:
    """The nodes alone."""
    if not nodes:
        return "no nodes have joined"
    columns = [c for c in NODE_COLUMNS if c.title not in ("NEXT HOP", "LAT P50")]
    return table(columns, with_hops(nodes, []), style)
