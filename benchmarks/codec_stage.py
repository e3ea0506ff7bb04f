"""What is measured of the wire codecs: their time, and what a model makes of held-out text when
hidden states go through them between its stages. Runs in a process of its own, pinned before this
is imported.
"""

from __future__ import annotations

import time
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from benchmarks.kv_stage import held_out
from daemon.embedded import TARGET
from daemon.embedded.train.evaluate import windows
from daemon.engine.caches import CachePlan
from daemon.engine.checkpoint import read_catalog
from daemon.engine.compiling import compiler_works
from daemon.engine.interception import PartialModel
from daemon.engine.loading import load_part
from daemon.engine.model import read_model
from daemon.layers import LayerRange
from daemon.stage.codecs import RowCoder
from transports.codecs.layout import Codec
from transports.frame import DType

CHUNK = 256  # rows of a frame when text is scored
CHANNELS = (7, 101, 20, 33, 58, 64, 77, 90, 120, 131, 150, 188)  # planted, so many as asked for


def seconds(codec: str, path: str, dtype: str, width: int, rows: int, times: int) -> dict[str, Any]:
    """Of encoding and decoding such rows once, on the average of `times`."""
    coder = RowCoder(width, DType[dtype], dict.fromkeys(Codec, 1) if path == "mlx" else {})
    given = mx.random.normal((rows, width), key=mx.random.key(1))
    given = given.astype(getattr(mx, dtype.lower()))
    mx.eval(given)
    start = time.perf_counter()
    for _ in range(times):
        decoded = coder.decode(coder.encode(Codec(codec), given))
        if path == "mlx":  # NumPy leaves what raw leaves too: a view, for the stage's own graph
            mx.eval(decoded)
    return {"seconds": (time.perf_counter() - start) / times}


def copy_seconds(nbytes: int, times: int) -> dict[str, Any]:
    """Of copying so many bytes: what memory allows."""
    source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
    start = time.perf_counter()
    for _ in range(times):
        np.copyto(target, source)
    return {"seconds": (time.perf_counter() - start) / times}


def lost(codec: str, width: int, factor: float, planted: int) -> dict[str, Any]:
    """Of normal rows with some channels times `factor`: the relative error of the others."""
    coder = RowCoder(width, DType.FLOAT32)
    rows = mx.random.normal((256, width), key=mx.random.key(2)) * _factors(width, factor, planted)
    mx.eval(rows)
    others = mx.array([c for c in range(width) if c not in CHANNELS[:planted]])
    apart = (coder.decode(coder.encode(Codec(codec), rows)) - rows)[:, others]
    return {"lost": (mx.linalg.norm(apart) / mx.linalg.norm(rows[:, others])).item()}


class Scoring:
    """The embedded target model in several stages, and what it makes of each window uncoded."""

    def __init__(self) -> None:
        self._stages: dict[int, list[tuple[PartialModel, CachePlan]]] = {}
        self._choices: list[mx.array] = []

    def score(
        self, codec: str, hops: int, factor: float, planted: int, count: int, window: int
    ) -> dict[str, Any]:
        """Nats per token of each of `count` windows of held-out text, with hidden states that went
        through the codec `hops` times, `planted` of their channels times `factor` meanwhile; and
        how often the first choice is raw's (which has to be asked for first).
        """
        if hops not in self._stages:
            self._stages[hops] = _stages(hops + 1)
        stages = self._stages[hops]
        width = read_model(TARGET).hidden_size
        coder = RowCoder(width, DType.FLOAT32)
        factors = _factors(width, factor, planted)
        rows = windows(held_out(), window)
        nats, choices = [], []
        for row in rows[:: len(rows) // count][:count]:
            caches = [plan.new() for _, plan in stages]
            losses = []
            for start in range(0, window, CHUNK):
                tokens, hidden = row[None, start : start + CHUNK], None
                for (partial, _), cache in zip(stages, caches, strict=True):
                    if hidden is not None and codec != Codec.RAW:
                        hidden = (_through(coder, Codec(codec), hidden[0] * factors) / factors)[
                            None
                        ]
                    cache.begin()
                    hidden = partial.body(tokens, cache.entries, hidden)
                    cache.advance(CHUNK)
                assert hidden is not None
                logits = stages[-1][0].tail(hidden)[0]
                wanted = row[start + 1 : start + CHUNK + 1]
                losses.append(nn.losses.cross_entropy(logits, wanted))
                choices.append(mx.argmax(logits, axis=-1))
                mx.eval(losses[-1], choices[-1], [cache.arrays() for cache in caches])
            nats.append(mx.concatenate(losses).mean())
        if codec == Codec.RAW:
            self._choices = choices
        same = mx.concatenate(choices) == mx.concatenate(self._choices)
        return {"nats": mx.stack(nats).tolist(), "agreement": same.mean().item()}


def _stages(count: int) -> list[tuple[PartialModel, CachePlan]]:
    """The model's layers shared out evenly, the first stages with one more."""
    layers = read_model(TARGET).layers
    ends = [layers * (i + 1) // count for i in range(count)]
    stages = []
    for start, end in zip([0, *ends], ends, strict=False):
        part = LayerRange(start, end)
        loaded = load_part(TARGET, read_catalog(TARGET), part, None, compiler_works())
        stages.append((loaded.partial, CachePlan(loaded.partial.model, part)))
    return stages


def _through(coder: RowCoder, codec: Codec, rows: mx.array) -> mx.array:
    mx.eval(rows)
    return coder.decode(coder.encode(codec, rows))


def _factors(width: int, factor: float, planted: int) -> mx.array:
    factors = np.ones(width, np.float32)
    factors[list(CHANNELS[:planted])] = factor
    return mx.array(factors)
