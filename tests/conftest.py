"""Tests side by side compile as stages side by side do: each process in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon.engine import kernels

kernels.enter()


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> Iterator[None]:
    kernels.exchange()
    yield
    kernels.exchange()
