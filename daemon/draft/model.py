"""The draft model: what it is, and loading it whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.config.sections import NodeConfig
from daemon.coordinator.models import Catalogue
from daemon.draft.drafter import Drafter
from daemon.engine.digest import weights_digest
from daemon.engine.errors import LoadError
from daemon.engine.model import ModelInfo, read_model
from daemon.engine.stage import Stage
from daemon.engine.vocabulary import vocabulary_digest
from daemon.layers import LayerRange
from daemon.stage.loading import kv_budget, machine_memory

SHARE = 8  # part of the memory for KV that a draft takes: its own is small next to the target's
CHUNK_SECONDS = 0.1  # what a step may take of a long prompt, in which nothing else is heard
CHUNK = 16, 256  # tokens, least and most


@dataclass(frozen=True, slots=True)
class DraftModel:
    name: str
    folder: Path
    info: ModelInfo
    digest: str
    vocabulary: str

    @classmethod
    def read(cls, reference: str, models: Mapping[str, Path]) -> DraftModel:
        """No weights yet. UnknownModel or LoadError."""
        name, folder = Catalogue(models).resolve(reference)
        info = read_model(folder)
        return cls(name, folder, info, weights_digest(folder), vocabulary_digest(folder))

    def load(self, node: NodeConfig, progress: Callable[[int, int], None]) -> tuple[Drafter, float]:
        """Ready to draft, and the seconds that a guess takes. LoadError; what `progress` raises
        passes through.
        """
        stage = Stage.load(self.folder, LayerRange(0, self.info.layers), progress=progress)
        speed = stage.warm()
        budget = kv_budget(node, stage.weights_bytes, machine_memory()) // SHARE
        if budget <= 0:
            why = f"{stage.weights_bytes:,} bytes of weights leave no memory for KV on this machine"
            raise LoadError(self.folder, why, "choose a smaller draft, or set node.kv_memory")
        least, most = CHUNK
        chunk = max(least, min(most, int(CHUNK_SECONDS / max(speed.prefill, 1e-9))))
        return Drafter(stage, budget, chunk), speed.decode[0][1]
