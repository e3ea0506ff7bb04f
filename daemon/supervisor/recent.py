"""The last lines of this process's own log, for `shardctl logs`."""

from __future__ import annotations

import logging
from collections import deque

from daemon.logs import ROOT

KEPT_LINES = 2000


class RecentLines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        logging.getLogger(ROOT).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def last(self, count: int) -> list[str]:
        return list(self._lines)[-count:] if count > 0 else []
