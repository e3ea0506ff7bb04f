"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil


def describe() -> dict[str, Any]:
    """Names and versions of what decides a benchmark's outcome; never the host's name."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "mlx": _version("mlx"),
        "mlx_lm": _version("mlx-lm"),
        "pinning": "one core a process" if hasattr(os, "sched_setaffinity") else "none",
    }


def busy_share(seconds: float = 1.0) -> float:
    """How much of the machine others use right now, 0 to 1."""
    return float(psutil.cpu_percent(seconds)) / 100


@contextmanager
def unpinned_afterwards() -> Iterator[None]:
    """A benchmark may pin this process; what comes after it must not inherit that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
