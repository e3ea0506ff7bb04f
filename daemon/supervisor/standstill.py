"""Children that somebody has stopped (SIGSTOP, a debugger that was left): they neither work nor
end, and nobody else can tell them from ones that are busy.
"""

from __future__ import annotations

from collections.abc import Callable

import psutil


def is_stopped(pid: int) -> bool:
    """Whether the process is there and stopped; one that a debugger holds is not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


class Standstill:
    """Of one child, looked at now and then. However slow a process is, it is never found here."""

    def __init__(self, patience: float, stopped: Callable[[int], bool] = is_stopped) -> None:
        """`patience`: seconds that it may be stopped."""
        self._patience = patience
        self._stopped = stopped
        self._since: tuple[int, float] | None = None  # which process, and when it was seen so first

    def look(self, pid: int, now: float) -> float | None:
        """Seconds for which the process has been stopped, once that is too long."""
        if not pid or not self._stopped(pid):
            self._since = None
            return None
        if self._since is None or self._since[0] != pid:
            self._since = pid, now
        seconds = now - self._since[1]
        return seconds if seconds >= self._patience else None
