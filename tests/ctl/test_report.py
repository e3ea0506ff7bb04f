"""A report is written whole or not at all."""

import json

import pytest

from ctl import report
from ctl.errors import CommandError


def test_it_is_there_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "report.json"
    report.write(path, {"report": 1, "text": "ä"})
    assert json.loads(path.read_text("utf-8")) == {"schema": 1, "report": 1, "text": "ä"}
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    report.write(path, {"first": True})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.os, "fsync", full)
    with pytest.raises(CommandError, match=r"cannot write .*report\.json"):
        report.write(path, {"first": False})
    assert json.loads(path.read_text("utf-8"))["first"] is True
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CommandError) as caught:
        report.write(tmp_path / "none" / "report.json", {})
    assert caught.value.why == "No such file or directory"
