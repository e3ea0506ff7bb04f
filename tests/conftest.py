"""Tests side by side compile as stages side by side do: each process in a folder of its own."""

from __future__ import annotations

from daemon.engine import kernels

kernels.enter()


def pytest_sessionfinish() -> None:
    kernels.publish()
