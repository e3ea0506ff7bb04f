"""A stage made ready as the coordinator asked: the right files, the right layers, warmed up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daemon import logs
from daemon import messages as msg
from daemon.engine.digest import weights_digest
from daemon.engine.errors import LoadError
from daemon.engine.stage import Speed, Stage
from daemon.layers import LayerRange

log = logs.get("stage")


@dataclass(frozen=True, slots=True)
class Ready:
    """A loaded stage, what it measured of itself, and how long it took."""

    stage: Stage
    speed: Speed
    seconds: float


def load_stage(load: msg.Load, folder: Path, progress: Callable[[int, int], None]) -> Ready:
    """Everything that can go wrong is a LoadError. What `progress` raises passes through."""
    began = time.monotonic()
    layers = LayerRange(load.start, load.end)
    log.info("loading layers %s of %s", layers, load.model)
    digest = weights_digest(folder)
    if digest != load.digest:
        raise LoadError(
            folder,
            f"weights digest {digest[:12]} here, {load.digest[:12]} at the coordinator",
            "copy the same files to every node",
        )
    try:
        stage = Stage.load(folder, layers, progress=progress)
        return Ready(stage, stage.warm(), time.monotonic() - began)
    except (RuntimeError, ValueError, MemoryError, OSError) as error:  # MLX's, the disk's
        log.exception("loading failed")
        raise LoadError(folder, str(error), "see `shardctl logs` of this node") from error
