"""What can go wrong in the engine, one class per remedy. No MLX import: the coordinator shows these
as well.

Every error reads as one line: what failed, why, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class EngineError(Exception):
    """Base of all errors the engine raises on purpose."""


class LoadError(EngineError):
    """A stage could not be loaded; nothing of it is kept. `path` is the file or folder at fault."""

    def __init__(self, path: Path, cause: str, remedy: str) -> None:
        super().__init__(f"{path}: {cause}; {remedy}")
        self.path = path
        self.cause = cause
        self.remedy = remedy


class UnreadableCheckpoint(LoadError):
    """A file is absent, or is not what its name says."""


class TruncatedWeights(LoadError):
    """A weight file is shorter than its own header says."""


class MissingWeights(LoadError):
    """Tensors that the stage needs are in no file, or do not have the shape the model wants."""


class WrongLayers(LoadError):
    """The layer range does not lie inside the model."""


class UnsupportedArchitecture(LoadError):
    """The model's type is not one that this engine has been proved to split."""


class CacheError(EngineError):
    """A sequence's cache was used against its contract, by the process that holds it."""
