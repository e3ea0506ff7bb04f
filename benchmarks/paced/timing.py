"""Waiting until a moment, precisely."""

from __future__ import annotations

import time

SPIN_SECONDS = 3e-4  # the end is waited for awake: a sleeper is woken late by some of this


def wait_until(moment: float) -> None:
    """Of the monotonic clock."""
    while (left := moment - time.monotonic()) > 0:
        if left > SPIN_SECONDS:
            time.sleep(left - SPIN_SECONDS)
