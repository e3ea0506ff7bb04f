"""How the group comes about: once, within a time limit, or not at all."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from daemon import messages as msg
from daemon.rdma import backends
from daemon.rdma.beside import connect_neighbours
from daemon.rdma.ending import BACKEND, START, Ending
from daemon.rdma.line import Line


@dataclass(frozen=True, slots=True)
class Formed:
    group: mx.distributed.Group
    lines: Mapping[int, Line]
    seconds: float


def form(start: msg.RdmaStart, folder: Path, limit_s: float, watchdog_s: float) -> Formed:
    """Ending when it does not come about within `limit_s`, wherever it hangs. For `watchdog_s` see
    connect_neighbours.
    """
    backends.check(start)
    if not mx.distributed.is_available(start.backend):
        raise Ending(BACKEND, f"MLX has no back end {start.backend!r} on this machine")
    if start.backend == backends.JACCL:
        backends.look_for_devices(start)
    began = time.monotonic()
    with _limited(limit_s, f"waiting for the others of {len(start.hosts)}"):
        group = _init(start, folder)
    beside = connect_neighbours(
        start.group,
        start.rank,
        start.hosts,
        backends.neighbours(start),
        began + limit_s,
        watchdog_s,
    )
    stays_awake = start.backend == backends.JACCL
    lines = {r: Line(start.rank, r, one, stays_awake) for r, one in beside.items()}
    return Formed(group, lines, time.monotonic() - began)


@contextmanager
def _limited(limit_s: float, what: str) -> Iterator[None]:
    """End the process when this takes longer. MLX holds Python's lock while it waits, so that no
    thread of Python's could: a thread in C does, without a word. So the last line is there before.
    """
    sys.stderr.write(f"rdma {START}: {what}, {limit_s:g} s at most\n")
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _init(start: msg.RdmaStart, folder: Path) -> mx.distributed.Group:
    try:
        backends.enter(backends.environment(start, folder))
        group = mx.distributed.init(strict=True, backend=start.backend)
        # All are there when this ends; a queue pair that was not ready would fail now.
        everyone = mx.distributed.all_sum(mx.ones((1,)), group=group, stream=mx.cpu)
        if group.size() != len(start.hosts) or everyone.item() != len(start.hosts):
            raise Ending(START, f"a group of {group.size()} that adds up to {everyone.item()}")
    except (RuntimeError, ValueError, OSError) as error:
        raise Ending(START, str(error)) from error
    return group
