"""Drafts are the embedded one, or the engine's tiny models."""

from __future__ import annotations

import pytest

from daemon.embedded import DRAFT
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from tests.engine.conftest import tiny

__all__ = ["embedded", "tiny"]


@pytest.fixture(scope="session")
def embedded() -> Stage:
    return Stage.load(DRAFT, LayerRange(0, 2))
