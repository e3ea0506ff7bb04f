"""Stages run on the engine's tiny models."""

from tests.engine.conftest import recurrent, tiny

__all__ = ["recurrent", "tiny"]
