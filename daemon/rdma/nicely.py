"""Work that leaves the core to others, in a process that will need it afterwards."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

NICE = 10  # about a tenth of a core that others want


def nicely(work: Callable[[], object]) -> None:
    """Do it in a thread of its own: who has made itself nice cannot take that back, but on Linux
    nice is of a thread. Elsewhere it is of the process, and the work is simply done. What it raises
    goes to threading.excepthook.
    """
    if sys.platform != "linux":
        work()
        return
    thread = threading.Thread(target=_nice_and, args=(work,), name="nice")
    thread.start()
    thread.join()


def _nice_and(work: Callable[[], object]) -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    work()
