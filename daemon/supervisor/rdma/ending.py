"""How an rdma process ended, from its exit and its last words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from daemon.supervisor.child import Exit

_LAST_WORDS = re.compile(r"rdma ([a-z]+): (.*)")
LINES = 20  # of its stderr: what libraries print comes behind its own last word


def explain(end: Exit, lines: Iterable[str]) -> tuple[str, str]:
    """Reason (for programs) and detail. Its own last word `rdma REASON: text` where it exited, else
    what the system says: signal, out-of-memory, exit, start.
    """
    if end.reason == "exit":
        for line in reversed(list(lines)[-LINES:]):
            if match := _LAST_WORDS.match(line):
                return match[1], f"{match[1]}: {match[2]}"
    return end.reason, end.detail
