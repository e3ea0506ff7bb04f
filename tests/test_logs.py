"""Logs: formats, fields, journald, and what must never be in them."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger(logs.ROOT)
    before = root.handlers[:], root.propagate, root.level
    yield
    root.handlers[:], root.propagate, _ = before
    root.setLevel(before[2])


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_json_lines_have_the_fields() -> None:
    stream = io.StringIO()
    output = logs.setup("auto", "info", "studio", "stage", stream)
    log = logs.get("stage")
    log.debug("not shown")
    log.info("loaded %d layers", 5, extra={"epoch": 7})
    output.fields["epoch"] = 8
    log.warning("slow", extra={"request": "r1", "path": Path("/x")})
    first, second = map(json.loads, lines(stream))
    assert first["ts"].endswith("Z")
    assert len(first.pop("ts")) == len("2026-01-01T00:00:00.000Z")
    assert first == {
        "level": "info",
        "node": "studio",
        "process": "stage",
        "epoch": 7,
        "logger": "stage",
        "message": "loaded 5 layers",
    }
    assert (second["epoch"], second["request"], second["path"]) == (8, "r1", "/x")


def test_text_is_one_line_that_nobody_can_forge() -> None:
    stream = io.StringIO()
    logs.setup("text", "debug", "studio", "shardd", stream)
    logs.get("x").info("a\nerror forged \x1b[2J é", extra={"why": "two words", "n": ""})
    (line,) = lines(stream)
    assert r"a\nerror forged \x1b[2J é" in line
    assert line.endswith('[node=studio process=shardd why="two words" n=""]')


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_users_wrote_is_not_logged(style: str) -> None:
    stream = io.StringIO()
    logs.setup(style, "debug", "n", "p", stream)
    logs.get("x").info("got it", extra={"prompt": "secret", "tokens": [27182, 81828], "text": 5})
    assert "(6)" in stream.getvalue()
    # Longer than any number that a time has.
    assert not any(word in stream.getvalue() for word in ("secret", "27182", "81828"))


def test_traces() -> None:
    stream = io.StringIO()
    logs.setup("json", "info", "n", "p", stream)
    try:
        raise OSError("broken")
    except OSError:
        logs.get("x").exception("failed")
    assert "OSError: broken" in json.loads(lines(stream)[0])["trace"]


def test_journald_gets_priorities_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "journal"
    with file.open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.setup("auto", "debug", "n", "p", stream)
        log = logs.get("x")
        log.debug("d")
        log.info("i")
        log.warning("w")
        try:
            raise OSError("broken")
        except OSError:
            log.exception("e")
        logs.setup("json", "debug", "n", "p", stream)
        log.critical("c")
    text = file.read_text().splitlines()
    assert text[:3] == [
        "<7>debug   x: d  [node=n process=p]",
        "<6>info    x: i  [node=n process=p]",
        "<4>warning x: w  [node=n process=p]",
    ]
    assert all(line.startswith("<3>") for line in text[3:-1])
    assert text[-1].startswith('<2>{"level": "critical"')


def test_a_child_with_a_pipe_is_not_under_journald(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "pipe").open("w") as stream:
        assert logs.setup("auto", "info", "n", "p", stream).style == "json"


def test_a_terminal_gets_text() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream, os.fdopen(leader, "rb"):
        assert logs.setup("auto", "info", "n", "p", stream).style == "text"


def test_level_changes_at_run_time_and_setup_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.setup("json", "info", "n", "p", first)
    logs.setup("json", "info", "n", "p", second)
    logs.set_level("error")
    logs.get("x").warning("no")
    logs.set_level("debug")
    logs.get("x").debug("yes")
    assert not lines(first)
    assert len(lines(second)) == 1


def test_a_closed_stderr_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream = io.StringIO()
    logs.setup("json", "info", "n", "p", stream)
    stream.close()
    logs.get("x").info("lost")
