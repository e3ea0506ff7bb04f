"""Logs of every Shardbus process: one root logger, one line a record, on stderr.

`text` for people, `json` for machines; `auto` is text on a terminal and under journald, else JSON.
When stderr is journald's, lines carry its `<N>` priority and no time of their own. Fields are given
as `log.info("loaded", extra={"epoch": 7})`. What a user wrote or got is never logged: a field with
such a name shows its length only.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from collections.abc import Sized
from typing import Any, TextIO

ROOT = "shardbus"
FORMATS = ("auto", "text", "json")
PRIVATE_FIELDS = frozenset({"prompt", "text", "messages", "completion", "tokens", "system", "stop"})

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def get(name: str) -> logging.Logger:
    """The logger `shardbus.NAME`."""
    return logging.getLogger(f"{ROOT}.{name}")


class LogOutput(logging.Handler):
    """The one handler of a process. `fields` go into every line; its owner may change them."""

    def __init__(self, style: str, stream: TextIO, fields: dict[str, Any], journal: bool) -> None:
        super().__init__()
        self.style, self.fields, self._stream, self._journal = style, fields, stream, journal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.render(record)
            if self._journal:  # each line of a traceback is an entry of its own there
                prefix = f"<{_priority(record.levelno)}>"
                line = "\n".join(prefix + part for part in line.split("\n"))
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # stderr is closed or full: logging must not stop the work
            self.handleError(record)

    def render(self, record: logging.LogRecord) -> str:
        """The record as text, without priority."""
        extra = {k: _public(k, v) for k, v in vars(record).items() if k not in _STANDARD}
        fields = {k: v for k, v in (self.fields | extra).items() if v is not None}
        level, name = record.levelname.lower(), record.name.removeprefix(f"{ROOT}.")
        message = record.getMessage()
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        if self.style == "json":
            body = {"level": level, **fields, "logger": name, "message": message}
            if not self._journal:
                body = {"ts": _time(record)} | body
            return json.dumps(body | ({"trace": trace} if trace else {}), default=str)
        pairs = " ".join(f"{k}={_word(v)}" for k, v in fields.items())
        line = f"{level:7} {name}: {_one_line(message)}" + (f"  [{pairs}]" if pairs else "")
        if not self._journal:
            line = f"{_time(record)} {line}"
        return line + ("\n" + trace if trace else "")


def setup(
    style: str, level: str, node: str, process: str, stream: TextIO | None = None
) -> LogOutput:
    """Send everything under `shardbus` to `stream` (stderr). A second call replaces the first."""
    stream = stream or sys.stderr
    journal = _is_journal(stream)
    if style == "auto":
        style = "text" if journal or stream.isatty() else "json"
    output = LogOutput(style, stream, {"node": node, "process": process}, journal)
    root = logging.getLogger(ROOT)
    root.handlers[:] = [output]
    root.propagate = False
    set_level(level)
    return output


def set_level(level: str) -> None:
    """Change the level of a running process: debug, info, warning or error."""
    logging.getLogger(ROOT).setLevel(level.upper())


def _is_journal(stream: TextIO) -> bool:
    """Whether `stream` itself is journald's; children inherit the variable but have a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file behind it, or closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _priority(level: int) -> int:
    return next((n for low, n in _PRIORITIES if level >= low), 7)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _public(name: str, value: Any) -> Any:
    if name not in PRIVATE_FIELDS:
        return value
    return f"({len(value)})" if isinstance(value, Sized) else "(private)"


def _one_line(text: str) -> str:
    """Control characters escaped, so that nobody's text can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _word(value: Any) -> str:
    text = _one_line(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "[]=') else text
