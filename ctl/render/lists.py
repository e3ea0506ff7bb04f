"""Requests, models, events, logs and the statistics of a generation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ctl.render.table import Column, Style, clean, table
from ctl.render.units import age, number, rate, size

Row = Mapping[str, Any]
ID_DIGITS = 12


def short_id(value: object) -> str:
    """A sequence's id as tables show it."""
    return clean(value)[:ID_DIGITS]


PS_COLUMNS = (
    Column("SEQUENCE", lambda row: short_id(row.get("sequence"))),
    Column("STATE", lambda row: clean(row.get("state")), state=True),
    Column("PROMPT", lambda row: number(row.get("prompt_tokens")), keep=1, right=True),
    Column("CACHED", lambda row: number(row.get("cached_tokens")), keep=3, right=True),
    Column("OUTPUT", lambda row: number(row.get("output_tokens")), right=True),
    Column("TOK/S", lambda row: rate(row.get("tokens_per_second")), keep=1, right=True),
    Column("AGE", lambda row: age(row.get("age")), keep=2, right=True),
    Column("REISSUES", lambda row: number(row.get("reissues")), keep=4, right=True),
    Column("ATTEMPT", lambda row: number(row.get("attempt")), keep=5, right=True, wide=True),
    Column("ID", lambda row: clean(row.get("sequence")), keep=6, wide=True),
)

MODEL_COLUMNS = (
    Column("NAME", lambda row: clean(row.get("name"))),
    Column("LOADED", lambda row: "yes" if row.get("loaded") else "no"),
    Column("ARCHITECTURE", lambda row: clean(row.get("architecture")), keep=2),
    Column("LAYERS", lambda row: number(row.get("layers")), right=True),
    Column("SIZE", lambda row: size(row.get("bytes")), right=True),
    Column("QUANTIZATION", lambda row: clean(row.get("quantization")), keep=3),
    Column("FOLDER", lambda row: clean(row.get("folder")), keep=4),
    Column("ERROR", lambda row: clean(row.get("error") or ""), keep=1),
)


def ps_text(sequences: Sequence[Row], style: Style) -> str:
    """Running and waiting requests."""
    return table(PS_COLUMNS, sequences, style) if sequences else "no requests"


def models_text(models: Sequence[Row], style: Style) -> str:
    """The models that the cluster knows."""
    return table(MODEL_COLUMNS, models, style) if models else "no models are configured"


def event_text(event: Row, style: Style) -> str:
    """One event on one line, in local time."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.get("time") or 0))
    node = f" {clean(event['node'])}" if event.get("node") else ""
    dim = style.paint(moment, "dim")
    return f"{dim} {clean(event.get('kind'))}{node}: {clean(event.get('text'))}"


def log_text(lines: Sequence[str]) -> str:
    """A node's log lines, tabs kept."""
    return "\n".join("\t".join(clean(part) for part in line.split("\t")) for line in lines)


def statistics_text(data: Row) -> str:
    """What a finished generation cost, for people, on one line."""

    def seconds(key: str) -> str:
        value = data.get(key)
        return "-" if value is None else f"{value:.2f} s"

    parts = [
        f"prompt {number(data.get('prompt_tokens'))} tokens"
        f" ({number(data.get('cached_tokens'))} cached,"
        f" {rate(data.get('prompt_tokens_per_second'))} tok/s)",
        f"output {number(data.get('output_tokens'))} tokens"
        f" ({rate(data.get('tokens_per_second'))} tok/s)",
        f"first token {seconds('ttft')}",
        f"total {seconds('duration')}",
        f"{clean(data.get('finish_reason'))}",
    ]
    if data.get("reissues"):
        parts.append(f"{number(data['reissues'])} reissues")
    if data.get("seed") is not None:
        parts.append(f"seed {data['seed']}")
    return " · ".join(parts)
