"""One stage of a pipeline: some layers of a model, and how to run rows of sequences through
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf
from pathlib import Path
from time import perf_counter

import mlx.core as mx

from daemon import logs
from daemon.engine.attention import intercept_attention, warm_attention
from daemon.engine.caches import CachePlan, SequenceCache
from daemon.engine.checkpoint import read_catalog, read_json
from daemon.engine.choosing import Choice
from daemon.engine.compiling import compiler_works
from daemon.engine.errors import CacheError, EngineError, WrongLayers
from daemon.engine.forward import Forward, Row, blank
from daemon.engine.head import Head, Sampled, collect
from daemon.engine.loading import LoadedPart, load_part, strip
from daemon.engine.model import ModelInfo, describe
from daemon.engine.quantization import KVQuantization
from daemon.engine.snapshot import forms
from daemon.footprint import Footprint
from daemon.kv_bits import EXACT, KV_BITS
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from daemon.storage.form import LayerForm

__all__ = ["Row", "Sampled", "Speed", "Stage"]

log = logs.get("engine")

# Numbers of tokens that are chosen in one step, compiled before the stage says that it is ready;
# what lies between is filled up to the next, and what lies beyond runs uncompiled.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_MEASURED = (1, 2, 4, 8, 16)  # sequences in a step
_WARM_PREFILL = 32
_WARM_STEPS = 3
_TRIED = (1, 8)  # tokens of a step and of a prompt, which MLX's GPUs multiply by other kernels
_WARM_SECONDS = 2.0  # after which nothing more is measured


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on this machine with empty caches: seconds of a step by the number of sequences in
    it, from one upwards, seconds per token of a prompt, and of a step those of the head.
    """

    decode: tuple[tuple[int, float], ...]
    prefill: float
    head: float = 0.0


class Stage:
    """Layers [start, end) of a model, loaded. Use it from one thread."""

    def __init__(self, info: ModelInfo, layers: LayerRange, part: LoadedPart) -> None:
        """Use `Stage.load`."""
        self.info = info
        self.layers = layers
        self.is_first = layers.start == 0
        self.is_last = layers.end == info.layers
        self.weights_bytes = part.weights_bytes
        self.tensor_names = part.tensors
        self.tensors_opened = len(part.tensors)
        self.files_opened = part.files
        self.compiled = False
        self._part = part
        self._partial = part.partial
        self._plan = CachePlan(part.partial.model, layers)
        self._head = Head(part.partial, info.vocab_size) if self.is_last else None
        self._quantization = info.kv_quantization
        intercept_attention()
        self._forward = Forward(part.partial, self._plan, info, self.is_first)
        self.batching = self._forward.batching

    @classmethod
    def load(
        cls,
        folder: Path,
        layers: LayerRange,
        *,
        progress: Callable[[int, int], None] | None = None,
        held: Stage | None = None,
    ) -> Stage:
        """Load the stage's own tensors and nothing else. What `held`, a stage of the same model,
        has of them is shared with it: both can be used, and what only one of them needs is free
        when that is.

        `progress(bytes_done, bytes_total)` is called after each parameter. Raises a LoadError,
        which names the file and the cause, for an unsupported or damaged model or a range outside
        it; nothing is kept then.
        """
        config, catalog = read_json(folder / "config.json"), read_catalog(folder)
        info = describe(folder, config, catalog)
        if layers.end > info.layers:
            raise WrongLayers(
                folder,
                f"layers [{layers.start}, {layers.end}) of a model of {info.layers}",
                f"ask for a range inside [0, {info.layers})",
            )
        compiled = compiler_works()
        shared = held._part if held else None  # a stage's own class: nobody else needs it
        stage = cls(info, layers, load_part(folder, catalog, layers, progress, compiled, shared))
        stage.compiled = compiled
        return stage

    def new_cache(self, kv_bits: int = EXACT) -> SequenceCache:
        """An empty cache for one sequence, its keys and values in `kv_bits` bits (0: exact).

        Raises CacheError, with the model's name and the reason, when they cannot be quantised, or
        MLX cannot compute with such ones on this device.
        """
        if why := self._quantization.refusal(kv_bits):
            raise CacheError(f"{self.info.name} cannot hold its KV in {kv_bits} bits: {why}")
        return self._plan.new(kv_bits, self._quantization.group_size)

    def discard(self) -> None:
        """Not to be used any more: let go of all weights that no other stage shares. The modules
        refer to each other, so they would not go by themselves.
        """
        strip(self._partial.model)
        self._part = replace(self._part, parameters={})

    def footprints(self) -> dict[int, Footprint]:
        """What a sequence takes here, by the bits of its KV, where model and device can have it so.
        That is tried: which kernels MLX has depends on shapes, types and on room to spare in a
        cache. From then on `new_cache` refuses what cannot be computed with.
        """
        found = {EXACT: self._footprint(EXACT)}
        try:
            for kv_bits in KV_BITS:
                if kv_bits != EXACT and not self._quantization.refusal(kv_bits):
                    found[kv_bits] = self._footprint(kv_bits)
        except RuntimeError as error:  # MLX's
            why = f"MLX cannot compute with such keys on this device: {error}"
            log.warning("%s: KV in %d bits cannot be had: %s", self.info.name, kv_bits, why)
            self._quantization = KVQuantization(0, why)
            return {EXACT: found[EXACT]}
        return found

    @property
    def reach(self) -> int | None:
        """See SequenceCache."""
        return self.new_cache().reach

    def kv_forms(self, kv_bits: int = EXACT) -> tuple[LayerForm, ...]:
        """What the saved cache of each own layer must look like. Builds a step that nobody
        evaluates. Raises CacheError as `new_cache` does.
        """
        cache = self.new_cache(kv_bits)
        hidden = None if self.is_first else blank(self.info, 1)[None]
        cache.begin()
        self._partial.body(mx.zeros((1, 1), mx.int32), cache.entries, hidden)
        cache.advance(1)
        return forms(cache)

    def run(
        self, rows: Sequence[Row], hidden: Sequence[mx.array] | None = None
    ) -> list[mx.array] | list[Sampled]:
        """Append each row's tokens to its cache and compute; returns when everything is evaluated.

        `hidden` is what the stage before returned: arrays whose first axis counts the tokens of all
        rows one after another ([tokens, hidden_size] in the model's type); None on the first stage.
        The last stage returns one Sampled per row, the others such arrays, row-contiguous. Each
        cache must be trimmed to where its row starts. Raises EngineError when rows and `hidden` do
        not fit; after any other exception the rows' caches are not to be used, unless they recover
        (SequenceCache.recover).
        """
        leaving = self._forward.run(rows, self._entering(rows, hidden))
        held = [array for row in rows for array in row.cache.arrays()]
        if self._head is None:
            carry = mx.contiguous(leaving)
            mx.eval(carry, held)
            return [carry]
        return self._finish(self._head, rows, leaving, held)

    def warm(self) -> Speed:
        """Compile what will be needed, and measure: call it once, before the stage says that it is
        ready.
        """
        if self._head is not None and self.compiled:
            for n in SIZES:
                self._head.warm(blank(self.info, n)[None])
        warm_attention()
        self._time(1, _WARM_PREFILL)  # the first pass of a shape makes kernels and touches weights
        prefill = self._time(1, _WARM_PREFILL) / _WARM_PREFILL
        began = perf_counter()
        decode: list[tuple[int, float]] = []
        for n in _MEASURED:
            late = n > 1 and perf_counter() - began > _WARM_SECONDS
            if late and n > 2:
                break
            self._time(n, 1)  # however slow: several sequences in a step need kernels of their own
            if not late:
                decode.append((n, min(self._time(n, 1) for _ in range(_WARM_STEPS))))
        return Speed(tuple(decode), prefill, self.head_seconds())

    def head_seconds(self) -> float:
        """Of norm, head and choice of one token, measured; 0 where they are not."""
        if self._head is None:
            return 0.0
        hidden, best = blank(self.info, 1)[None], inf
        mx.eval(hidden)
        for _ in range(_WARM_STEPS):
            start = perf_counter()
            mx.eval(self._head(hidden, [Choice(SamplingParams(), (), 0)]))
            best = min(best, perf_counter() - start)
        return best

    def _footprint(self, kv_bits: int) -> Footprint:
        cache = self.new_cache(kv_bits)
        for n in _TRIED:
            row = Row(cache, [0] * n, (), 0, SamplingParams())
            self.run([row], None if self.is_first else [blank(self.info, n)])
        return cache.footprint()

    def _entering(self, rows: Sequence[Row], hidden: Sequence[mx.array] | None) -> mx.array | None:
        """Hidden states [tokens, hidden_size] of all rows, once they are known to fit."""
        total = 0
        for row in rows:
            n = len(row.tokens)
            if not 0 <= row.outputs <= n or n == 0:
                raise EngineError(f"a row of {n} tokens cannot give {row.outputs} outputs")
            position = row.cache.length + n
            if self.is_last and row.outputs and len(row.history) != position:
                raise EngineError(f"a history of {len(row.history)} tokens at position {position}")
            total += n
        if not rows:
            raise EngineError("nothing to run: no rows")
        if self.is_first:
            if hidden:
                raise EngineError("the first stage takes no hidden states")
            return None
        if not hidden or len(hidden) != 1 or hidden[0].shape != (total, self.info.hidden_size):
            shapes = [list(array.shape) for array in hidden or ()]
            raise EngineError(
                f"hidden states {shapes} where [[{total}, {self.info.hidden_size}]] belongs"
            )
        return hidden[0]

    def _finish(
        self,
        head: Head,
        rows: Sequence[Row],
        leaving: mx.array,
        held: Sequence[mx.array],
    ) -> list[Sampled]:
        wanted = [
            Choice(row.params, row.history, len(row.history) - after)
            for row in rows
            for after in reversed(range(row.outputs))
        ]
        if not wanted:
            mx.eval(held)
            return [Sampled([]) for _ in rows]
        if len(wanted) < leaving.shape[0]:
            ends = accumulate(len(row.tokens) for row in rows)
            last = zip(ends, (row.outputs for row in rows), strict=True)
            places = [n for end, outputs in last for n in range(end - outputs, end)]
            leaving = leaving[mx.array(places)]
        arrays = head(leaving[None], wanted)
        mx.eval(arrays, held)
        return collect(arrays, wanted, [row.outputs for row in rows])

    def _time(self, rows: int, n: int) -> float:
        """Seconds of a pass over `n` new tokens of each of `rows` sequences."""
        fresh = [Row(self.new_cache(), [0] * n, [0] * n, 1, SamplingParams()) for _ in range(rows)]
        hidden = None if self.is_first else [blank(self.info, rows * n)]
        mx.eval(hidden or [])
        start = perf_counter()
        self.run(fresh, hidden)
        return perf_counter() - start
