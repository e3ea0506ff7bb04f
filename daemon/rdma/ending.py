"""How the process ends when something goes wrong: at once, and with a reason as its last line.

    rdma REASON: what happened, in the words of whoever said it

shardd tells the coordinator this line as the detail of ChildExited.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from types import TracebackType
from typing import NoReturn

from daemon.config import EX_CONFIG

ARGUMENTS = "arguments"  # it was started wrongly
BACKEND = "backend"  # MLX has no such back end here, or it cannot send
DEVICES = "devices"  # an RDMA device that the group needs is not there
START = "start"  # the group did not come about
PEER = "peer"  # a neighbour is gone, or the way to it
STALLED = "stalled"  # an operation did not end in time
DAMAGED = "damaged"  # a neighbour sent what cannot be
FAILED = "failed"  # an error in this program
ORPHAN = "orphan"  # shardd is gone

_HOPELESS = (ARGUMENTS, BACKEND)  # another start would find the same
_EXIT_FAILED = 1


class Ending(Exception):
    """Ends the process, whichever thread it is raised in."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


def end(reason: str, why: str) -> NoReturn:
    """From any thread, without a look at the others: any of them may hang."""
    text = " ".join(why.split())
    sys.stderr.write(f"rdma {reason}: {text}\n")
    sys.stderr.flush()
    os._exit(EX_CONFIG if reason in _HOPELESS else _EXIT_FAILED)


def end_on_errors() -> None:
    """Whatever is raised and not handled ends the process."""

    def of_thread(arguments: threading.ExceptHookArgs) -> None:
        _end_by(arguments.exc_value, arguments.exc_traceback)

    def of_main(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        _end_by(error, at)

    threading.excepthook = of_thread
    sys.excepthook = of_main


def _end_by(error: BaseException | None, at: TracebackType | None) -> None:
    if isinstance(error, Ending):
        end(error.reason, error.why)
    traceback.print_exception(None, value=error, tb=at)
    end(FAILED, repr(error))
