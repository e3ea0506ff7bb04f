"""Checks, results and the document made of them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.report import (
    Fact,
    Result,
    at_least,
    at_most,
    load_saved,
    render,
    save,
    write_document,
)

MACHINE = {"cpu": "a test", "cores": 2}


def _result(name: str = "sample") -> Result:
    checks = [
        at_least("ratio", 0.96, 0.95),
        at_most("seconds", 0.7, 0.5),
        at_least("gone", None, 1),
    ]
    return Result(
        name, MACHINE, f"python -m benchmarks {name}", checks, [Fact("rate", 9.5, "tok/s")]
    )


def test_a_check_knows_its_target_and_whether_it_was_met() -> None:
    assert [check.ok for check in _result().checks] == [True, False, False]
    assert [check.target for check in _result().checks] == [">= 0.95", "<= 0.5", ">= 1"]
    assert not _result().ok


def test_a_value_on_the_target_meets_it() -> None:
    assert at_least("a", 0.95, 0.95).ok
    assert at_most("a", 0.5, 0.5).ok


def test_rounding_is_for_showing_only() -> None:
    check = at_least("a", 0.94996, 0.95)
    assert check.value == 0.95
    assert not check.ok


def test_json_has_the_agreed_form() -> None:
    data = _result().to_json()
    assert {"name", "machine", "checks"} <= data.keys()
    assert all(check.keys() == {"id", "value", "target", "ok"} for check in data["checks"])
    assert json.loads(json.dumps(data)) == data


def test_a_saved_result_comes_back_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(_result(name), tmp_path)
    found = load_saved(tmp_path, ["a", "missing", "b"])
    assert [result.name for result in found] == ["a", "b"]
    assert found[0].to_json() == _result("a").to_json()


def test_the_document_names_command_machine_and_what_was_missed(tmp_path: Path) -> None:
    write_document(tmp_path / "docs" / "benchmarks.md", [_result()])
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "1 of 3 checks ok" in text
    assert "- sample: seconds" in text
    assert "`python -m benchmarks sample`" in text
    assert "cpu a test, cores 2" in text


def test_what_could_not_be_measured_is_said() -> None:
    assert "| gone | not measured | >= 1 | MISSED |" in render(_result())
