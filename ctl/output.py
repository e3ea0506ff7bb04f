"""What a command writes with: stdout for data, stderr for everything else."""

from __future__ import annotations

import os
import queue
import select
import stat
import sys
import threading
from enum import StrEnum

import ctl.render.table as tables

POLLIN, POLLERR = 1, 4  # zmq's values; this module is imported where zmq is not wanted


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"

    @property
    def machine(self) -> bool:
        """Meant for programs."""
        return self in (Format.JSON, Format.JSONL)


def style_of(stream_fd: int, wide: bool, no_color: bool) -> tables.Style:
    """What the output on `stream_fd` can show."""
    terminal = os.isatty(stream_fd)
    width = None
    if terminal:
        try:
            width = int(os.environ.get("COLUMNS") or os.get_terminal_size(stream_fd).columns)
        except (OSError, ValueError):
            width = 80
    color = terminal and os.environ.get("TERM") != "dumb"
    if os.environ.get("FORCE_COLOR"):
        color = True
    if os.environ.get("NO_COLOR") or no_color:
        color = False
    return tables.Style(width=width or None, color=color, wide=wide)


def say(text: str) -> None:
    """A line on stderr. A closed stderr is nobody's problem."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def forget_stdout() -> None:
    """Nobody reads stdout any more: what is still buffered goes nowhere, without a complaint."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


class Sink:
    """Writes to a descriptor from its own thread, so that a reader who pauses (a pager) stops
    neither the signs of life to the coordinator nor Ctrl-C. Also a `ctl.client.Watch`: it stirs
    when the reader has gone.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._error: OSError | None = None
        self._wake_read, self._wake_write = os.pipe()
        mode = os.fstat(descriptor).st_mode
        self._pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._ends_line = True
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Queue `text`; whole characters, in UTF-8 whatever the locale. Raises what the writing of
        earlier pieces met: BrokenPipeError when the reader has gone.
        """
        if text:
            self.check()
            self._pieces.put(text.encode("utf-8", "replace"))
            self._ends_line = text.endswith("\n")

    def finish_line(self) -> None:
        """Output ends with a line break, so that the prompt or the next program starts afresh."""
        if not self._ends_line:
            self.write("\n")

    def close(self, patience: float | None = None) -> None:
        """Wait until everything is written, for `patience` at most; raises like `write`."""
        self._pieces.put(None)
        self._thread.join(patience)
        if self._error is not None:
            raise self._error

    def descriptors(self) -> list[tuple[int, int]]:
        """What to watch for a reader who leaves."""
        watched = [(self._wake_read, POLLIN)]
        return [*watched, (self._descriptor, POLLERR)] if self._pipe else watched

    def check(self) -> None:
        """Raise when output can no longer be written."""
        if self._error is not None:
            raise self._error
        if self._pipe:
            poll = select.poll()
            poll.register(self._descriptor, 0)
            if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
                raise BrokenPipeError("the reader of the output has gone")

    def _run(self) -> None:
        try:
            while (piece := self._pieces.get()) is not None:
                while piece:
                    piece = piece[os.write(self._descriptor, piece) :]
        except OSError as error:
            self._error = error
            os.write(self._wake_write, b"x")
