"""Text tables that fit the terminal: least wanted columns go first, then the widest one shrinks."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GAP = "  "
COLORS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
STATE_COLORS = {
    "ready": "green",
    "up": "green",
    "ok": "green",
    "decode": "green",
    "loading": "yellow",
    "joining": "yellow",
    "suspect": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "loading-kv": "yellow",
    "waiting": "yellow",
    "degraded": "red",
    "down": "red",
    "failed": "red",
    "refused": "red",
    "peer-disabled": "yellow",
    "needs-recovery": "yellow",
    "needs-reboot": "yellow",
    "needs-address": "yellow",
    "bridge-active": "yellow",
    "wedged": "red",
}


@dataclass(frozen=True)
class Column:
    """One column: `cell` turns a row into text. `keep` 0 is never dropped; the higher, the sooner
    it goes when there is no room. `wide` columns show with `-o wide` only.
    """

    title: str
    cell: Callable[[Mapping[str, Any]], str]
    keep: int = 0
    right: bool = False
    wide: bool = False
    state: bool = False


@dataclass(frozen=True)
class Style:
    """What the output can show. `width` None: as wide as it gets (a pipe or a file)."""

    width: int | None = None
    color: bool = False
    wide: bool = False

    def paint(self, text: str, color: str | None) -> str:
        if not self.color or color is None or not text:
            return text
        return f"\x1b[{COLORS[color]}m{text}\x1b[0m"

    def state(self, text: str) -> str:
        """`text` in the colour of the state it names."""
        return self.paint(text, STATE_COLORS.get(text.strip().lower()))


def columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def clean(value: object) -> str:
    """`value` as text that cannot steer the terminal; None is a dash."""
    if value is None:
        return "-"
    return "".join(char if char.isprintable() else "?" for char in str(value))


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` columns, with an ellipsis where it was cut."""
    if columns_of(text) <= width:
        return text
    kept = text
    while kept and columns_of(kept) > max(0, width - 1):
        kept = kept[:-1]
    return kept + "…" if width > 0 else ""


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], style: Style) -> str:
    """Title line and one line per row, without trailing blanks; the same width everywhere."""
    shown = [column for column in columns if style.wide or not column.wide]
    cells = [[clean(column.cell(row)) for row in rows] for column in shown]
    widths = [
        max(map(columns_of, (column.title, *texts)))
        for column, texts in zip(shown, cells, strict=True)
    ]
    if style.width is not None:
        while _total(widths) > style.width and any(column.keep for column in shown):
            drop = max(range(len(shown)), key=lambda index: (shown[index].keep, index))
            del shown[drop], cells[drop], widths[drop]
        while _total(widths) > style.width and max(widths) > 6:
            widest = max(range(len(widths)), key=widths.__getitem__)
            widths[widest] -= 1
    titles = [column.title for column in shown]
    lines = [_line(shown, titles, widths, None)]
    for index in range(len(rows)):
        lines.append(_line(shown, [texts[index] for texts in cells], widths, style))
    return "\n".join(lines)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _line(
    columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int], style: Style | None
) -> str:
    parts = []
    for index, (column, text, width) in enumerate(zip(columns, texts, widths, strict=True)):
        text = shorten(text, width)
        pad = " " * (width - columns_of(text))
        painted = style.state(text) if style is not None and column.state else text
        last = index == len(columns) - 1
        parts.append(pad + painted if column.right else painted + ("" if last else pad))
    return GAP.join(parts).rstrip()
