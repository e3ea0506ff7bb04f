"""What a process holds, for tests that nothing is left over."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import psutil

REGION = "memfd:shardbus-rdma"


@dataclass(frozen=True)
class Holding:
    """Descriptors, threads and mapped regions; bytes of memory."""

    counts: tuple[int, int, int]
    memory: int


def holding(process: psutil.Process) -> Holding:
    regions = 0
    if sys.platform == "linux":
        regions = sum(REGION in one.path for one in process.memory_maps(grouped=False))
    counts = process.num_fds(), process.num_threads(), regions
    return Holding(counts, process.memory_info().rss)
