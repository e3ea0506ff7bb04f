"""The KV caches: what each stage holds, what can be used again, and the conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctl.render.lists import short_id
from ctl.render.table import Column, Style, clean, table
from ctl.render.units import age, number, share, size

Row = Mapping[str, Any]


def _kind(row: Row) -> str:
    """What its arrays are, and in how many bits where that is not the model's own type."""
    kind, bits = row.get("kind"), row.get("kv_bits")
    if bits:
        return f"{clean(kind)} {clean(bits)}-bit" if kind else f"{clean(bits)}-bit"
    return clean(kind) if kind or bits is None else "exact"


def _id(row: Row) -> object:
    """What is on the disks only is no sequence, and has an id of its own."""
    return row.get("sequence") or row.get("entry")


def _short_id(row: Row) -> str:
    return short_id(_id(row))


def _on_disk(row: Row) -> str:
    return size(row.get("bytes") if row.get("state") == "saved" else row.get("disk_bytes"))


def _words(values: Sequence[object] | None) -> str:
    return "-" if values is None else " ".join(map(clean, values))


def _shared(row: Row) -> str:
    shared = row.get("shared_with")
    return _words(None if shared is None else [short_id(value) for value in shared])


def _yes(row: Row, key: str) -> str:
    value = row.get(key)
    return "-" if value is None else "yes" if value else "no"


ID = Column("ID", lambda row: clean(_id(row)), keep=7, wide=True)

KV_COLUMNS = (
    Column("SEQUENCE", _short_id),
    Column("STAGE", lambda row: clean(row.get("stage")), right=True),
    Column("NODE", lambda row: clean(row.get("node"))),
    Column("TOKENS", lambda row: number(row.get("tokens")), right=True),
    Column("SIZE", lambda row: size(row.get("bytes")), right=True),
    Column("TYPE", _kind, keep=1),
    Column("STATE", lambda row: clean(row.get("state")), keep=2, state=True),
    Column("SHARED WITH", _shared, keep=4),
    Column("CONVERSATION", lambda row: _words(row.get("names")), keep=3),
    ID,
)

STAGE_COLUMNS = (
    Column("STAGE", lambda row: clean(row.get("stage")), right=True),
    Column("NODE", lambda row: clean(row.get("node"))),
    Column("BUDGET", lambda row: size(row.get("budget_bytes")), right=True),
    Column("USED", lambda row: size(row.get("used_bytes")), right=True),
    Column("KEPT", lambda row: size(row.get("kept_bytes")), keep=1, right=True),
    Column("DISK", lambda row: size(row.get("disk_bytes")), keep=2, right=True),
)

ENTRY_COLUMNS = (
    Column("SEQUENCE", _short_id),
    Column("STATE", lambda row: clean(row.get("state")), state=True),
    Column("TOKENS", lambda row: number(row.get("tokens")), right=True),
    Column("TYPE", _kind, keep=3),
    Column("PINNED", lambda row: _yes(row, "pinned"), keep=2),
    Column("HITS", lambda row: number(row.get("hits")), keep=3, right=True),
    Column("IDLE", lambda row: age(row.get("idle")), keep=2, right=True),
    Column("AGE", lambda row: age(row.get("age")), keep=5, right=True),
    Column("DISK", _on_disk, keep=4, right=True),
    Column("SHARED WITH", _shared, keep=6),
    Column("CONVERSATION", lambda row: _words(row.get("names")), keep=1),
    ID,
)

CONVERSATION_COLUMNS = (
    Column("CONVERSATION", lambda row: clean(row.get("name"))),
    Column("TURNS", lambda row: number(row.get("turns")), right=True),
    Column("TOKENS", lambda row: number(row.get("tokens")), right=True),
    Column("IDLE", lambda row: age(row.get("idle")), keep=1, right=True),
    Column("RUNNING", lambda row: _yes(row, "running"), keep=2),
    Column("SAVED", lambda row: _yes(row, "saved"), keep=3),
    Column("RAW", lambda row: _yes(row, "raw"), keep=4),
    Column("MODEL", lambda row: clean(row.get("model")), keep=5),
    Column("SEQUENCE", _short_id, keep=3),
    ID,
)


def kv_text(data: Row, style: Style) -> str:
    """Per sequence and stage, with the sum; below it the stages' budgets and what reuse brought."""
    rows = data.get("sequences") or []
    blocks = [_held(rows, data.get("entries") or [], style)]
    if data.get("stages"):
        blocks += ["", table(STAGE_COLUMNS, data["stages"], style)]
    if data.get("counters"):
        blocks.append(_counters(data["counters"]))
    return "\n".join(blocks)


def _held(rows: Sequence[Row], entries: Sequence[Row], style: Style) -> str:
    if not rows:
        return "no KV caches are held"
    known = {entry.get("sequence"): entry for entry in entries}
    joined = [{**known.get(row.get("sequence"), {}), **row} for row in rows]
    held = sum(row.get("bytes") or 0 for row in rows)
    ids = {row.get("sequence") for row in rows}
    word = "sequence" if len(ids) == 1 else "sequences"
    return table(KV_COLUMNS, joined, style) + f"\n{len(ids)} {word}, {size(held)} in all"


def _counters(counters: Row) -> str:
    hits, misses = counters.get("hits"), counters.get("misses")
    looked = None if hits is None or misses is None else hits + misses
    parts = (
        f"hit rate {share(hits / looked if looked else None)} ({number(hits)} of {number(looked)})",
        f"{number(counters.get('hit_tokens'))} tokens used again",
        f"evictions {number(counters.get('evictions'))}",
        f"preemptions {number(counters.get('preemptions'))}",
    )
    return " · ".join(parts)


def list_text(entries: Sequence[Row], conversations: Sequence[Row], style: Style) -> str:
    """What can be used again, then the conversations."""
    blocks = [table(ENTRY_COLUMNS, entries, style) if entries else "no KV caches are held"]
    if conversations:
        blocks += ["", table(CONVERSATION_COLUMNS, conversations, style)]
    else:
        blocks.append("no conversations")
    return "\n".join(blocks)


def show_text(data: Row, style: Style) -> str:
    """One of them, as far as it is known."""
    blocks = []
    entries = [data["entry"]] if data.get("entry") else []
    if data.get("conversation"):
        blocks += [table(CONVERSATION_COLUMNS, [data["conversation"]], style), ""]
    if entries:
        blocks += [table(ENTRY_COLUMNS, entries, style), ""]
    return "\n".join([*blocks, _held(data.get("sequences") or [], entries, style)])
