"""The soak's page names every part of it, and what a run counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.soak import PARTS, summary

HERE = Path(__file__).parent


def test_each_part_is_explained() -> None:
    marked = {
        str(file.relative_to(HERE))
        for file in HERE.rglob("test_*.py")
        if "mark.soak" in file.read_text() and file != Path(__file__)
    }
    assert marked == PARTS.keys()


def test_what_was_counted_is_told() -> None:
    tests = {
        "tests/a.py::b[1]": {"outcome": "passed", "seconds": 2.0, "counted": ["seed 1: 25 moves"]},
        "tests/c.py::d[1]": {"outcome": "passed", "seconds": 1.0, "counted": ["sum of 2 a, 3 b"]},
        "tests/c.py::d[2]": {"outcome": "passed", "seconds": 1.0, "counted": ["sum of 5 a, 1 b"]},
        "tests/a.py::b[2]": {"outcome": "failed", "seconds": 1.0, "counted": []},
    }
    result: dict[str, Any] = {"seed": 0, "commit": "abc", "machine": "m", "tests": tests}
    page = summary(result, ["-k", "b"])
    assert "| tests/a.py | 1 of 2 | 3 |" in page
    assert (
        "Counted:\n\n- sum of 7 a, 4 b\n- seed 1: 25 moves\n\nFailed:\n\n- tests/a.py::b[2]\n"
        in page
    )
    assert "`python -m tests.soak --seed 0 -k b`, commit abc, m, " in page
