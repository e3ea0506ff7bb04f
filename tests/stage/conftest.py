"""Stages run on the engine's tiny models."""

from tests.engine.conftest import tiny

__all__ = ["tiny"]
