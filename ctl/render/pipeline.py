"""Where a pass through the pipeline spends its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ctl.render.table import Column, Style, clean, table
from ctl.render.units import latency, number, share, size

Row = Mapping[str, Any]


def _time(key: str, percentile: str) -> Callable[[Row], str]:
    return lambda row: latency((row.get(key) or {}).get(percentile))


def _codec(wire: Row) -> str:
    """How hidden states are written; "" on a hop that carries none."""
    if not wire:
        return ""
    codec, wish = clean(wire.get("codec") or "raw"), clean(wire.get("wish"))
    if wish == "auto":
        return f"{codec} (auto)"
    if wish != "raw" and wish not in (wire.get("possible") or []):
        return f"raw ({wish} impossible)"
    return wish


def _speed(wire: Row) -> str:
    """As measured with large frames."""
    speed = wire.get("bytes_per_second")
    return f"{size(speed)}/s" if speed else ""


def not_by_rdma(hop: Row) -> str:
    """Why, and how often it was by RDMA until that ended; "" when it is, or never can be."""
    if not hop.get("not_rdma"):
        return ""
    fallbacks = hop.get("fallbacks") or {}
    ended = ", ".join(f"{number(count)} {clean(reason)}" for reason, count in fallbacks.items())
    return f"not by RDMA: {clean(hop['not_rdma'])}" + (f" (ended: {ended})" if ended else "")


STAGE_COLUMNS = (
    Column("STAGE", lambda row: clean(row.get("stage")), right=True),
    Column("NODE", lambda row: clean(row.get("node"))),
    Column("LAYERS", lambda row: clean(row.get("layers"))),
    Column("QUEUE P50", _time("queue", "p50"), keep=1, right=True),
    Column("P99", _time("queue", "p99"), keep=3, right=True),
    Column("COMPUTE P50", _time("compute", "p50"), right=True),
    Column("P99", _time("compute", "p99"), keep=2, right=True),
    Column("ENCODE P50", _time("encode", "p50"), keep=4, right=True),
    Column("P99", _time("encode", "p99"), keep=5, right=True),
    Column("BUSY", lambda row: share(row.get("busy")), right=True),
    Column("BUBBLE", lambda row: share(row.get("bubble")), keep=1, right=True),
    Column("FRAMES", lambda row: clean(row.get("frames")), keep=6, right=True),
)

HOP_COLUMNS = (
    Column("HOP", lambda row: f"{clean(row.get('from'))} → {clean(row.get('to'))}"),
    Column("PATH", lambda row: clean(row.get("path"))),
    Column("LINK P50", lambda row: latency(row.get("p50")), right=True),
    Column("P99", lambda row: latency(row.get("p99")), keep=1, right=True),
    Column("CODEC", lambda row: _codec(row.get("wire") or {}), keep=3),
    Column("SPEED", lambda row: _speed(row.get("wire") or {}), keep=3, right=True),
    Column("STATE", lambda row: clean(row.get("state")), state=True),
    Column("WHY", lambda row: clean(row.get("why") or "") or not_by_rdma(row), keep=2),
)


def pipeline_text(data: Row, style: Style) -> str:
    """Stages, then hops, then what was guessed and refilled."""
    stages, hops = data.get("stages") or [], data.get("hops") or []
    if not stages:
        return "no pipeline: no model is loaded"
    head = (
        f"epoch {clean(data.get('epoch'))} · {clean(data.get('in_flight'))} microbatches in flight"
        f" of {clean(data.get('window'))}"
    )
    blocks = [head, table(STAGE_COLUMNS, stages, style)]
    if hops:
        blocks += ["", table(HOP_COLUMNS, hops, style)]
    lines = (_guesses(data.get("speculation") or {}), _refills(data.get("refills") or {}))
    if any(lines):
        blocks += ["", *filter(None, lines)]
    return "\n".join(blocks)


def _refills(data: Row) -> str:
    """One line; "" when no stage that restarted was ever refilled."""
    if not data.get("begun"):
        return ""
    return (
        f"refilled after restarts of stages: {number(data.get('begun'))} sequences, "
        f"{number(data.get('tokens'))} tokens · {number(data.get('given up'))} given up"
    )


def _guesses(data: Row) -> str:
    """One line; "" when nothing was ever guessed, but might have been."""
    if why := data.get("why"):
        return f"nothing is guessed: {clean(why)}"
    if not data.get("sent"):
        return ""
    tempo = data.get("tempo") or {}
    return (
        f"guesses from {clean(data.get('source'))}: {share(data.get('acceptance'))} right of "
        f"{number(data.get('sent'))} sent · {clean(tempo.get('first'))} beside a token, "
        f"{clean(tempo.get('after'))} ahead of it · {number(data.get('frames_ahead'))} frames "
        f"ahead, {number(data.get('cancelled'))} cancelled"
    )
