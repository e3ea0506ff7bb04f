"""What `-o json` and `-o jsonl` print. Keys are stable; bytes and seconds stay raw numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA = 1


def document(data: Mapping[str, Any]) -> str:
    """One JSON document over several lines."""
    return json.dumps({"schema": SCHEMA, **data}, indent=2, ensure_ascii=False)


def line(data: Mapping[str, Any]) -> str:
    """One JSON document on one line."""
    return json.dumps({"schema": SCHEMA, **data}, ensure_ascii=False)


def lines(records: Iterable[Mapping[str, Any]]) -> str:
    """One line per record."""
    return "\n".join(line(record) for record in records)
