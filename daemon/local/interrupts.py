"""Signals that have to wait until something is done that must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """What is handled in Python is handled at the end. Not blocked by a mask: what is started
    meanwhile would inherit it. Elsewhere than in the main thread no handler runs anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[signal.Signals] = []

    def note(signum: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(signum))

    handlers = {signum: signal.getsignal(signum) for signum in HELD_BACK}
    handled = {signum: handler for signum, handler in handlers.items() if callable(handler)}
    for signum in handled:
        signal.signal(signum, note)
    try:
        yield
    finally:
        for signum, handler in handled.items():
            signal.signal(signum, handler)
        for signum in came:
            signal.raise_signal(signum)
