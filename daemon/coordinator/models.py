"""The models this coordinator knows by name, and what it needs of one to serve it: never its
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon import logs
from daemon.cluster.events import ModelSpec
from daemon.coordinator.tokenizer import Tokenizer
from daemon.embedded import BUILT_IN
from daemon.engine.digest import weights_digest
from daemon.engine.errors import LoadError
from daemon.engine.model import ModelInfo, read_model
from daemon.engine.vocabulary import vocabulary_digest

log = logs.get("models")


class UnknownModel(LookupError):
    """Neither a known name nor a folder with a model."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's description and its tokenizer. `vocabulary` is the digest that a draft's must
    equal, empty where it cannot be told.
    """

    spec: ModelSpec
    info: ModelInfo
    tokenizer: Tokenizer
    vocabulary: str = ""


class Catalogue:
    def __init__(self, configured: Mapping[str, Path]) -> None:
        self.folders: dict[str, Path] = {**BUILT_IN, **configured}

    def resolve(self, reference: str) -> tuple[str, Path]:
        """Name and folder. UnknownModel says which names there are."""
        if reference in self.folders:
            return reference, self.folders[reference]
        folder = Path(reference).expanduser()
        if folder.is_absolute() and (folder / "config.json").is_file():
            return folder.name, folder
        raise UnknownModel(f"known are {', '.join(sorted(self.folders))}, or give a model's folder")

    def prepare(self, reference: str) -> ServedModel:
        """Read what serving needs; slow (seconds), for a thread of its own. UnknownModel or
        LoadError.
        """
        name, folder = self.resolve(reference)
        info = read_model(folder)
        head = info.head_bytes + (info.embedding_bytes if info.tied else 0)
        digest, embedding = weights_digest(folder), info.embedding_bytes
        spec = ModelSpec(name, str(folder), digest, info.layer_bytes, head, embedding)
        return ServedModel(spec, info, Tokenizer(folder), _vocabulary(folder))

    def listing(self, loaded: str | None) -> list[dict[str, Any]]:
        return [self._entry(name, folder, loaded) for name, folder in sorted(self.folders.items())]

    def _entry(self, name: str, folder: Path, loaded: str | None) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "name": name,
            "folder": str(folder),
            "architecture": None,
            "layers": None,
            "bytes": None,
            "quantization": None,
            "loaded": name == loaded,
            "error": None,
        }
        try:
            info = read_model(folder)
        except LoadError as error:
            entry["error"] = str(error)
            return entry
        return entry | {
            "architecture": info.architecture,
            "layers": info.layers,
            "bytes": info.weights_bytes,
            "quantization": info.quantization,
        }


def _vocabulary(folder: Path) -> str:
    """A tokenizer in another form than tokenizer.json serves as well; only no draft can use it."""
    try:
        return vocabulary_digest(folder)
    except LoadError as error:
        log.info("no draft can guess for this model: %s", error)
        return ""
