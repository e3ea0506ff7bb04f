"""What a benchmark found: checks against targets, facts beside them, as JSON and as a section of
docs/benchmarks.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One number that was asked for. `value` is None when it could not be measured here, which is
    not ok.
    """

    id: str
    value: float | None
    target: str
    ok: bool

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "value": self.value, "target": self.target, "ok": self.ok}


def at_least(id: str, value: float | None, target: float) -> Check:
    return Check(id, _rounded(value), f">= {target:g}", value is not None and value >= target)


def at_most(id: str, value: float | None, target: float) -> Check:
    return Check(id, _rounded(value), f"<= {target:g}", value is not None and value <= target)


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that explains the checks; no target."""

    id: str
    value: float
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "value": _rounded(self.value), "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Table:
    """What is best read side by side."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        return {"head": list(self.head), "rows": list(map(list, self.rows))}


@dataclass(frozen=True, slots=True)
class Result:
    """Of one benchmark. `notes` say what could not be run, and which conditions the numbers hold
    under.
    """

    name: str
    machine: Mapping[str, Any]
    command: str
    checks: Sequence[Check]
    facts: Sequence[Fact] = ()
    notes: Sequence[str] = ()
    table: Table | None = None

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "machine": dict(self.machine),
            "checks": [check.to_json() for check in self.checks],
            "facts": [fact.to_json() for fact in self.facts],
            "notes": list(self.notes),
            "command": self.command,
            **({} if self.table is None else {"table": self.table.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        return cls(
            data["name"],
            data["machine"],
            data["command"],
            [Check(c["id"], c["value"], c["target"], c["ok"]) for c in data["checks"]],
            [Fact(f["id"], f["value"], f["unit"]) for f in data["facts"]],
            data["notes"],
            Table(**data["table"]) if "table" in data else None,
        )


def render(result: Result) -> str:
    """As text for a terminal and as Markdown alike."""
    lines = [f"`{result.command}`", ""]
    if result.table:
        lines += _table(result.table.head, result.table.rows)
    if result.checks:
        lines += _table(
            ("check", "value", "target", ""),
            [(c.id, _shown(c.value), c.target, "ok" if c.ok else "MISSED") for c in result.checks],
        )
    if result.facts:
        lines += _table(
            ("measured beside it", "value", ""),
            [(f.id, _shown(f.value), f.unit) for f in result.facts],
        )
    lines += [f"- {note}" for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"


def write_document(path: Path, results: Iterable[Result]) -> None:
    """docs/benchmarks.md, all of it: made by `make bench`, never edited."""
    results = list(results)
    missed = [f"{r.name}: {c.id}" for r in results for c in r.checks if not c.ok]
    total = sum(len(r.checks) for r in results)
    parts = [
        "# Benchmarks",
        "",
        "Written by `make bench`; each section's command repeats it alone. Ratios are medians of",
        "the ratios within each interleaved round, with best against best beside them. Other work",
        "may share the machine: read ratios, not rates.",
        "",
        f"{total - len(missed)} of {total} checks ok." + (" Missed: " if missed else ""),
        *[f"- {name}" for name in missed],
        "",
    ]
    for result in results:
        machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
        parts += [f"## {result.name}", "", f"Machine: {machine}.", "", render(result)]
    text = "\n".join(parts).rstrip() + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.name}.json").write_text(json.dumps(result.to_json(), indent=1) + "\n")


def load_saved(folder: Path, names: Iterable[str]) -> list[Result]:
    """The last result of each benchmark that has one, in the order of `names`."""
    files = [folder / f"{name}.json" for name in names]
    return [Result.from_json(json.loads(file.read_text())) for file in files if file.exists()]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return [*body, ""]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
