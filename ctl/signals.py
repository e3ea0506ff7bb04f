"""Signals become one exception; a second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from ctl.errors import Interrupted

AGAIN_SECONDS = 0.02
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The first signal raises Interrupted in the main thread, so that a command can cancel what it
    asked for; the second runs `last_resort` and exits without further ado.
    """

    def __init__(self) -> None:
        self.last_resort: Callable[[], None] = _nothing
        self._seen = False

    def install(self) -> None:
        """Take over; signals that our parent told us to ignore (nohup) stay ignored."""
        for signum in HANDLED:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._handle)
        sys.unraisablehook = self._unraisable

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """A signal that came while a finalizer ran: Python drops what is raised there, and here. It
        is sent again a little later, until it comes where it is heard.
        """
        if isinstance(lost.exc_value, Interrupted):
            self._seen = False
            again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), lost.exc_value.signum))
            again.daemon = True
            again.start()
        else:
            sys.__unraisablehook__(lost)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._seen:
            try:
                self.last_resort()
            finally:
                os._exit(128 + signum)
        self._seen = True
        raise Interrupted(signum)


def _nothing() -> None:
    pass
