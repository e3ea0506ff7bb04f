"""A stage made ready as the coordinator asked: the right files, the right layers, warmed up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import psutil

from daemon import logs
from daemon import messages as msg
from daemon.config.sections import NodeConfig
from daemon.engine.digest import weights_digest
from daemon.engine.errors import LoadError
from daemon.engine.stage import Speed, Stage
from daemon.footprint import Footprint
from daemon.layers import LayerRange
from daemon.stage.codecs import RowCoder, measure
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec

log = logs.get("stage")
CODED_ROWS = 256  # of a frame, up to which coding is measured
RESERVE = 2 << 30  # bytes for everything else; at least an eighth of the machine


@dataclass(frozen=True, slots=True)
class Ready:
    """A loaded stage, what it measured of itself, and how long it took. `hidden` are bytes for the
    hidden states that it sends on.
    """

    stage: Stage
    speed: Speed
    seconds: float
    memory: int
    kv_budget: int
    kv_footprints: dict[int, Footprint]
    coder: RowCoder
    codec_costs: dict[Codec, Cost]
    hidden: int

    def told(self, node: str, incarnation: str, digest: str, address: str) -> msg.Loaded:
        """As the coordinator hears of it; `address` is where the stage takes frames."""
        stage = self.stage
        return msg.Loaded(
            node,
            incarnation,
            digest,
            stage.layers.start,
            stage.layers.end,
            address,
            stage.weights_bytes,
            stage.tensors_opened,
            self.seconds,
            [[float(n), seconds] for n, seconds in self.speed.decode],
            self.speed.prefill,
            self.speed.head,
            stage.compiled,
            stage.batching.value,
            self.memory,
            self.kv_budget,
            [[bits, f.token_bytes, f.sequence_bytes] for bits, f in self.kv_footprints.items()],
            stage.reach,
            {codec.value: [c.frame_s, c.row_s] for codec, c in self.codec_costs.items()},
        )


def load_stage(
    load: msg.Load | msg.Prepare,
    folder: Path,
    node: NodeConfig,
    progress: Callable[[int, int], None],
    held: Stage | None = None,
) -> Ready:
    """Everything that can go wrong is a LoadError, with MLX's or the disk's error as its cause.
    What `progress` raises passes through. Weights that `held` has are shared with it.
    """
    began = time.monotonic()
    layers = LayerRange(load.start, load.end)
    log.info("loading layers %s of %s", layers, load.model)
    check_digest(folder, load.digest)
    try:
        stage = Stage.load(folder, layers, progress=progress, held=held)
        speed, footprints = stage.warm(), stage.footprints()
        coder, costs = measure(RowCoder.of(stage.info), CODED_ROWS)
        budget = kv_budget(node, stage.weights_bytes, machine_memory())
        if budget <= 0:
            raise LoadError(
                folder,
                f"{stage.weights_bytes:,} bytes of weights leave no memory for KV on this machine",
                "give this node fewer layers, or set node.kv_memory",
            )
        seconds = time.monotonic() - began
        memory = max(usable_memory(node, machine_memory()), stage.weights_bytes + budget)
        hidden = node.hidden_memory
        return Ready(stage, speed, seconds, memory, budget, footprints, coder, costs, hidden)
    except (RuntimeError, ValueError, MemoryError, OSError) as error:  # MLX's, the disk's
        raise LoadError(folder, str(error), "see `shardctl logs` of this node") from error


def check_digest(folder: Path, wanted: str) -> None:
    """LoadError unless the model's weights are those of the coordinator's."""
    digest = weights_digest(folder)
    if digest != wanted:
        raise LoadError(
            folder,
            f"weights digest {digest[:12]} here, {wanted[:12]} at the coordinator",
            "copy the same files to every node",
        )


def usable_memory(node: NodeConfig, memory: int) -> int:
    """Bytes for weights and KV: what the reserve and hidden states leave of `max_memory`, or of the
    `memory` of the machine.
    """
    memory = node.max_memory or memory
    return max(0, memory - max(RESERVE, memory // 8) - node.hidden_memory)


def kv_budget(node: NodeConfig, weights_bytes: int, memory: int) -> int:
    """Bytes for the KV of all sequences together: as configured, or what the machine's `memory` has
    beside weights and reserve.
    """
    if node.kv_memory is not None:
        return node.kv_memory
    return usable_memory(node, memory) - weights_bytes


def machine_memory() -> int:
    """Bytes where MLX computes: of a GPU with memory of its own, or of the machine."""
    total: int = psutil.virtual_memory().total
    if mx.default_device().type != mx.DeviceType.gpu:
        return total
    own = mx.device_info().get("memory_size", total)
    return min(total, int(own))
