"""Norm, head and choice of tokens as one compiled step: logits do not leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from daemon.engine.choosing import Choice, Variant, choose, options
from daemon.engine.interception import PartialModel
from daemon.sampling import SamplingParams

Step = Callable[..., tuple[mx.array, ...]]
_NOBODY = Choice(SamplingParams(), (), 0)


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tokens chosen for the last `outputs` positions of a row.

    `logprobs`, when the row asked for them, has one {"logprob": float, "top": [[id, logprob], ...]}
    per token: of the distribution after bias and penalties, before filters and temperature, as
    mlx-lm reports it.
    """

    tokens: list[int]
    logprobs: list[dict[str, Any]] | None = None


class Head:
    """The end of the model. Signatures that were warmed run compiled, all others as they are."""

    def __init__(self, partial_model: PartialModel, vocabulary: int) -> None:
        self._model = partial_model
        self._vocabulary = vocabulary
        self._compiled: dict[tuple[Variant, int, int], Step] = {}
        self._sizes: list[int] = []

    def __call__(self, hidden: mx.array, wanted: Sequence[Choice]) -> tuple[mx.array, ...]:
        """Arrays of `choose`, not evaluated, for hidden states [1, len(wanted), hidden_size]. Rows
        that fill it up to a compiled size may follow in them.
        """
        size = next((n for n in self._sizes if n >= len(wanted)), len(wanted))
        if more := size - len(wanted):
            filler = mx.zeros((1, more, hidden.shape[2]), hidden.dtype)
            hidden = mx.concatenate([hidden, filler], axis=1)
            wanted = [*wanted, *[_NOBODY] * more]
        given = options(wanted, self._vocabulary)
        signature = (given.variant, size, given.width)
        step = self._compiled.get(signature) or partial(self._step, given.variant)
        return step(hidden, *given.arrays)

    def warm(self, hidden: mx.array) -> None:
        """Compile every variant for hidden states of this shape [1, n, hidden_size]; from the
        smallest n upwards.
        """
        for params in (
            SamplingParams(),
            SamplingParams(temperature=1.0),
            SamplingParams(temperature=1.0, top_p=0.9),
        ):
            given = options([Choice(params, (), 0)] * hidden.shape[1], self._vocabulary)
            step: Step = mx.compile(partial(self._step, given.variant))
            mx.eval(step(hidden, *given.arrays))
            self._compiled[given.variant, hidden.shape[1], given.width] = step
        self._sizes.append(hidden.shape[1])

    def _step(self, variant: Variant, hidden: mx.array, *given: mx.array) -> tuple[mx.array, ...]:
        return choose(variant, self._model.tail(hidden)[0], *given)


def collect(
    arrays: Sequence[mx.array], wanted: Sequence[Choice], counts: Sequence[int]
) -> list[Sampled]:
    """Evaluated arrays of `choose` as one Sampled per row, `counts` tokens each."""
    values: list[Any] = [array.tolist() for array in arrays]
    rows, start = [], 0
    for count in counts:
        span = range(start, start + count)
        shown = wanted[start].params.logprobs if count else None
        rows.append(
            Sampled(
                [values[0][n] for n in span],
                None if shown is None else [_entry(values, n, shown) for n in span],
            )
        )
        start += count
    return rows


def _entry(values: Sequence[Any], n: int, shown: int) -> dict[str, Any]:
    _, chosen, ids, top = values
    pairs = zip(ids[n][:shown], top[n][:shown], strict=True)
    return {"logprob": chosen[n], "top": [[token, value] for token, value in pairs]}
