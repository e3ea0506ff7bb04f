"""One stage of a pipeline: some layers of a model, and how to run rows of sequences through
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import mlx.core as mx

from daemon.engine.caches import CachePlan, SequenceCache
from daemon.engine.checkpoint import read_catalog, read_json
from daemon.engine.choosing import Choice
from daemon.engine.compiling import compiler_works
from daemon.engine.errors import EngineError, WrongLayers
from daemon.engine.head import Head, Sampled, collect
from daemon.engine.loading import LoadedPart, load_part
from daemon.engine.model import ModelInfo, describe
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams

__all__ = ["Row", "Sampled", "Speed", "Stage"]

_WARM_PREFILL = 32
_WARM_STEPS = 3


@dataclass(slots=True)
class Row:
    """One sequence's part of a microbatch.

    `tokens` are the new ids; the cache holds everything before them. `history` are all ids of the
    sequence up to and including these (only the last stage looks at it). `outputs` tokens are
    chosen, after the last positions of the row.
    """

    cache: SequenceCache
    tokens: Sequence[int]
    history: Sequence[int]
    outputs: int
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on this machine with an empty cache, in seconds per token of one sequence."""

    decode: float
    prefill: float


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
        self._partial = part.partial
        self._plan = CachePlan(part.partial.model, layers)
        self._head = Head(part.partial, info.vocab_size) if self.is_last else None

    @classmethod
    def load(
        cls,
        folder: Path,
        layers: LayerRange,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Stage:
        """Load the stage's own tensors and nothing else.

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
        stage = cls(info, layers, load_part(folder, catalog, layers, progress, compiled))
        stage.compiled = compiled
        return stage

    def new_cache(self) -> SequenceCache:
        """An empty cache for one sequence."""
        return self._plan.new()

    def run(
        self, rows: Sequence[Row], hidden: Sequence[mx.array] | None = None
    ) -> list[mx.array] | list[Sampled]:
        """Append each row's tokens to its cache and compute; returns when everything is evaluated.

        `hidden` is what the stage before returned: arrays whose first axis counts the tokens of all
        rows one after another ([tokens, hidden_size] in the model's type); None on the first stage.
        The last stage returns one Sampled per row, the others such arrays, row-contiguous. Each
        cache must be trimmed to where its row starts. Raises EngineError when rows and `hidden` do
        not fit; after any other exception the rows' caches are not to be used.
        """
        entering = self._entering(rows, hidden)
        leaving = []
        for row, part in zip(rows, entering, strict=True):
            tokens = mx.array([row.tokens], mx.int32)
            row.cache.begin()
            leaving.append(self._partial.body(tokens, row.cache.entries, part))
            row.cache.advance(len(row.tokens))
        held = [array for row in rows for array in row.cache.arrays()]
        if self._head is None:
            joined = leaving[0] if len(leaving) == 1 else mx.concatenate(leaving, axis=1)
            carry = mx.contiguous(joined[0])
            mx.eval(carry, held)
            return [carry]
        return self._finish(self._head, rows, leaving, held)

    def warm(self, outputs: Sequence[int] = (1,)) -> Speed:
        """Compile what will be needed, and measure: call it once, before the stage says that it is
        ready.

        `outputs` are the numbers of tokens per step that are to run compiled; any other number
        works as well.
        """
        if self._head is not None and self.compiled:
            for n in outputs:
                self._head.warm(self._blank(n)[None])
        self._time(_WARM_PREFILL)  # the first pass of a shape makes kernels and touches the weights
        prefill = self._time(_WARM_PREFILL) / _WARM_PREFILL
        self._time(1)
        decode = min(self._time(1) for _ in range(_WARM_STEPS))
        return Speed(decode, prefill)

    def _entering(
        self, rows: Sequence[Row], hidden: Sequence[mx.array] | None
    ) -> Sequence[mx.array | None]:
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
            return [None] * len(rows)
        if not hidden or len(hidden) != 1 or hidden[0].shape != (total, self.info.hidden_size):
            shapes = [list(array.shape) for array in hidden or ()]
            raise EngineError(
                f"hidden states {shapes} where [[{total}, {self.info.hidden_size}]] belongs"
            )
        if len(rows) == 1:
            return [hidden[0][None]]
        parts: list[mx.array | None] = []
        start = 0
        for row in rows:
            parts.append(hidden[0][None, start : start + len(row.tokens)])
            start += len(row.tokens)
        return parts

    def _finish(
        self,
        head: Head,
        rows: Sequence[Row],
        leaving: Sequence[mx.array],
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
        ends = [h[:, -row.outputs :] for row, h in zip(rows, leaving, strict=True) if row.outputs]
        joined = ends[0] if len(ends) == 1 else mx.concatenate(ends, axis=1)
        arrays = head(joined, wanted)
        mx.eval(arrays, held)
        return collect(arrays, wanted, [row.outputs for row in rows])

    def _blank(self, n: int) -> mx.array:
        return mx.zeros((n, self.info.hidden_size), getattr(mx, self.info.dtype))

    def _time(self, n: int) -> float:
        row = Row(self.new_cache(), [0] * n, [0] * n, 1, SamplingParams())
        hidden = None if self.is_first else [self._blank(n)]
        mx.eval(hidden or [])
        start = perf_counter()
        self.run([row], hidden)
        return perf_counter() - start
