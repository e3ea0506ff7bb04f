"""From logits to tokens, as a function of (logits, sampling parameters, tokens before, position),
row by row.

The order and meaning of the options are mlx-lm's (sample_utils): logit bias, then repetition,
presence and frequency penalty over the last `penalty_window` tokens (0: over all of them, as
`tokens[-0:]` is there), then top-p, min-p and top-k on the distribution before temperature, then
temperature. Different from mlx-lm: tokens tied with the k-th most likely all stay; the noise has an
explicit key, so the token at position p is

    argmax(logits / temperature + Gumbel(key(seed, p)))   over the tokens that the filters leave.

Options are arrays, so that one compiled graph serves every mixture of requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import mlx.core as mx
import numpy as np

from daemon.sampling import MAX_TOP_LOGPROBS, SamplingParams

ADJUSTED = 32  # entries per row of adjusted logits in the compiled graph; more go uncompiled
_MASK = (1 << 64) - 1


class Variant(IntEnum):
    """How much of the choice a batch needs; a batch takes the largest of its rows'."""

    GREEDY = 0  # argmax of the logits as they are
    NOISE = 1  # temperature
    FULL = 2  # penalties, bias, filters, log-probabilities as well

    @staticmethod
    def of(params: SamplingParams) -> Variant:
        if (
            params.logprobs is not None
            or params.logit_bias
            or params.repetition_penalty != 1.0
            or params.presence_penalty
            or params.frequency_penalty
        ):
            return Variant.FULL
        if params.temperature == 0.0:
            return Variant.GREEDY
        filtered = 0.0 < params.top_p < 1.0 or params.top_k or params.min_p
        return Variant.FULL if filtered else Variant.NOISE


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of logits to choose from: the token at `position`, after history[:position]."""

    params: SamplingParams
    history: Sequence[int]
    position: int

    def penalised(self) -> Sequence[int]:
        """The tokens that the penalties look at."""
        window = self.params.penalty_window or self.position
        return self.history[max(0, self.position - window) : self.position]


@dataclass(frozen=True, slots=True)
class Options:
    """The rows' options as arrays, in the order in which the graphs below take them."""

    variant: Variant
    arrays: tuple[mx.array, ...]

    @property
    def width(self) -> int:
        return int(self.arrays[-1].shape[1]) if self.variant is Variant.FULL else 0


def sampling_key(seed: int, position: int) -> tuple[int, int]:
    """The noise key of one token: a mixture of both numbers (splitmix64 of Steele, Lea and Flood
    2014, applied twice).
    """
    state = _mix(_mix(seed) ^ position)
    return state >> 32, state & 0xFFFFFFFF


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def options(choices: Sequence[Choice], vocabulary: int) -> Options:
    """Arrays for a batch of choices. Token ids outside the vocabulary are passed over."""
    variant = max(Variant.of(c.params) for c in choices)
    if variant is Variant.GREEDY:
        return Options(variant, ())
    keys = [sampling_key(c.params.seed, c.position) for c in choices]
    arrays = [
        mx.array(np.array(keys, np.uint32)),
        _column([c.params.temperature for c in choices]),
    ]
    if variant is Variant.NOISE:
        return Options(variant, tuple(arrays))
    arrays += [
        _column([c.params.top_p if c.params.top_p > 0.0 else 1.0 for c in choices]),
        _column([np.log(c.params.min_p) if c.params.min_p else -np.inf for c in choices]),
        mx.array([[min(c.params.top_k or vocabulary, vocabulary)] for c in choices], mx.int32),
        _column([c.params.repetition_penalty for c in choices]),
        _column([c.params.presence_penalty for c in choices]),
        _column([c.params.frequency_penalty for c in choices]),
        *_adjusted(choices, vocabulary),
    ]
    return Options(variant, tuple(arrays))


def _column(values: Sequence[float]) -> mx.array:
    return mx.array(np.array(values, np.float32)[:, None])


def _adjusted(choices: Sequence[Choice], vocabulary: int) -> tuple[mx.array, mx.array, mx.array]:
    """Per row, which logits change: their ids, their bias, and how often they stand in the penalty
    window.
    """
    rows = []
    for choice in choices:
        params = choice.params
        penalised = (
            params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
        )
        counts = Counter(choice.penalised() if penalised else ())
        changed = [t for t in {**counts, **params.logit_bias} if 0 <= t < vocabulary]
        rows.append([(t, params.logit_bias.get(t, 0.0), counts[t]) for t in changed])
    width = ADJUSTED
    while width < max(map(len, rows)):
        width *= 4
    ids = np.zeros((len(rows), width), np.int32)
    bias = np.zeros((len(rows), width), np.float32)
    count = np.zeros((len(rows), width), np.float32)
    for n, row in enumerate(rows):
        # Unused places repeat the first: writing the same value there twice changes nothing.
        filled = (row or [(0, 0.0, 0)]) + [row[0] if row else (0, 0.0, 0)] * width
        for m, (token, added, times) in enumerate(filled[:width]):
            ids[n, m], bias[n, m], count[n, m] = token, added, times
    return mx.array(ids), mx.array(bias), mx.array(count)


def choose(variant: Variant, logits: mx.array, *arrays: mx.array) -> tuple[mx.array, ...]:
    """Tokens [n] of logits [n, vocabulary].

    With FULL also log-probabilities [n], and ids [n, 20] and log-probabilities [n, 20] of the most
    likely tokens.
    """
    if variant is Variant.GREEDY:
        return (mx.argmax(logits, axis=-1),)
    logits = logits.astype(mx.float32)
    keys, temperature, *rest = arrays
    if variant is Variant.NOISE:
        return (_draw(logits, logits, keys, temperature),)
    logits, logprobs, order, kept = process(logits, *rest)
    tokens = _draw(logits, mx.where(kept, logits, -mx.inf), keys, temperature)
    chosen = mx.take_along_axis(logprobs, tokens[:, None], axis=-1)
    top = order[:, ::-1][:, :MAX_TOP_LOGPROBS]
    return tokens, chosen[:, 0], top, mx.take_along_axis(logprobs, top, axis=-1)


def process(
    logits: mx.array,
    top_p: mx.array,
    log_min_p: mx.array,
    top_k: mx.array,
    repetition: mx.array,
    presence: mx.array,
    frequency: mx.array,
    ids: mx.array,
    bias: mx.array,
    count: mx.array,
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """Logits after bias and penalties, their log-probabilities, the tokens in ascending order of
    these, and which tokens the filters leave; each [n, vocabulary].
    """
    logits = _adjust(logits, repetition, presence, frequency, ids, bias, count)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    order = mx.argsort(logprobs, axis=-1)
    ascending = mx.take_along_axis(logprobs, order, axis=-1)
    threshold = _threshold(ascending, top_p, top_k)
    kept = (logprobs >= threshold) & (logprobs >= ascending[:, -1:] + log_min_p)
    return logits, logprobs, order, kept


def _draw(logits: mx.array, kept: mx.array, keys: mx.array, temperature: mx.array) -> mx.array:
    """argmax(kept / temperature + noise); argmax(logits) in rows of temperature 0."""
    size = logits.shape[-1]
    noise = mx.stack([mx.random.gumbel((size,), key=keys[n]) for n in range(keys.shape[0])])
    greedy = temperature == 0.0
    # Measured from the greatest, so that a tiny temperature cannot make infinities of them.
    scores = (kept - kept.max(axis=-1, keepdims=True)) / mx.where(greedy, 1.0, temperature) + noise
    return mx.argmax(mx.where(greedy, logits, scores), axis=-1)


def _adjust(
    logits: mx.array,
    repetition: mx.array,
    presence: mx.array,
    frequency: mx.array,
    ids: mx.array,
    bias: mx.array,
    count: mx.array,
) -> mx.array:
    there = count > 0
    some = mx.take_along_axis(logits, ids, axis=-1) + bias
    scaled = mx.where(some < 0, some * repetition, some / repetition)
    some = mx.where(there, scaled, some)
    some = some - mx.where(there, presence, 0.0) - frequency * count
    return mx.put_along_axis(logits, ids, some, axis=-1)


def _threshold(ascending: mx.array, top_p: mx.array, top_k: mx.array) -> mx.array:
    """The least log-probability that top-p and top-k leave; the most likely token always stays."""
    probs = mx.exp(ascending)
    above = mx.cumsum(probs, axis=-1, reverse=True, inclusive=False)
    total = above[:, :1] + probs[:, :1]
    # top_p 1 switches the filter off: rounding must not drop the least likely tokens then.
    beyond = (above >= top_p * total).sum(axis=-1, keepdims=True).astype(mx.int32)
    dropped = mx.maximum(mx.where(top_p < 1.0, beyond, 0), ascending.shape[-1] - top_k)
    return mx.take_along_axis(ascending, dropped, axis=-1)
