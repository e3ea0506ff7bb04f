"""What a child writes to stderr: the last lines in memory, more of them in a file."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import BinaryIO

from daemon import logs

KEPT_LINES = 2000
LOG_FILE_BYTES = 16 << 20
log = logs.get("supervisor")


class Output:
    """The file is a convenience: a disk that is full or not to be written costs lines of the file,
    never the child. A full file becomes `NAME.1`, and the one before it goes.
    """

    def __init__(self, path: Path) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._path = path
        self._file: BinaryIO | None = None
        self._trouble = ""

    def take(self, line: bytes) -> None:
        self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
        try:
            self._write(line)
        except OSError as error:  # every line tries again
            self.close()
            if str(error) != self._trouble:
                log.warning("cannot write %s: %s", self._path, error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()  # unbuffered: nothing is left to write
            self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is not None and self._file.tell() >= LOG_FILE_BYTES:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        self._file.write(line)
