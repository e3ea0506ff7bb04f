"""A command that is asked something, and may hang: it has its time, and is then killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

MOST_BYTES = 1 << 16


async def ask(command: Sequence[str], seconds: float) -> str | None:
    """What it printed; None when it is missing, failed or took too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    assert process.stdout
    try:
        async with asyncio.timeout(seconds):
            said = await process.stdout.read(MOST_BYTES)
            code = await process.wait()
    except TimeoutError:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return said.decode("utf-8", "replace") if code == 0 else None
