"""Look at this machine: all tools at once, each with its time."""

from __future__ import annotations

import asyncio
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.machine import MAC_TOOLS, OTHER_TOOLS, mac, other
from daemon.thunderbolt.run import SECONDS, Output, Runner

RECENT_SECONDS = 5.0  # system_profiler alone takes one to three
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Look:
    """`at` is time.monotonic() of its end."""

    machine: Machine
    outputs: Mapping[str, Output]
    at: float


class Looker:
    """Many may ask at once: the tools run once, and what they said serves for a while."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._runner = Runner(seconds)
        self._last: Look | None = None
        self._running: asyncio.Task[Look] | None = None

    async def look(self, age: float = RECENT_SECONDS) -> Look:
        """One that is at most `age` seconds old, within the time of one tool and a second. With 0:
        as things are from now on, within twice that.
        """
        last = self._last
        if last is not None and time.monotonic() - last.at < age:
            return last
        if age <= 0.0 and self._running is not None:
            await asyncio.wait({self._running})  # it may have looked already at what has changed
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._look())
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """End the tools that still run."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _look(self) -> Look:
        # Not only by name: a Mac is what has a Mac's tools.
        is_mac = platform.system() == "Darwin" or shutil.which("sw_vers") is not None
        tools = MAC_TOOLS if is_mac else OTHER_TOOLS
        async with (
            asyncio.TaskGroup() as group
        ):  # whose end is that of all, also when it is cut off
            runs = {t: group.create_task(self._runner.run(c)) for t, c in tools.items()}
        outputs = {tool: running.result() for tool, running in runs.items()}
        machine = mac(outputs) if is_mac else _other(outputs)
        self._last = Look(machine, outputs, time.monotonic())
        return self._last


def _other(outputs: Mapping[str, Output]) -> Machine:
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        boot = ""
    return other(platform.system(), platform.release(), boot, outputs)
