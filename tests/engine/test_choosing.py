"""Choosing tokens: the distribution is mlx-lm's, the draw is a function of (seed, position)."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_logits_processors

from daemon.engine.choosing import Choice, Variant, choose, options, process, sampling_key
from daemon.sampling import SamplingParams
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Pipe, load_split

SIZE = 50
HISTORY = [3, 9, 9, 4, 30, 9, 2, 3, 41, 7]
CASES = {
    "plain": {"temperature": 0.7},
    "top_p": {"temperature": 1.3, "top_p": 0.8},
    "top_k": {"temperature": 1.0, "top_k": 5},
    "min_p": {"temperature": 1.0, "min_p": 0.2},
    "filters": {"temperature": 0.9, "top_p": 0.9, "top_k": 12, "min_p": 0.01},
    "repetition": {"temperature": 1.0, "repetition_penalty": 1.7},
    "presence": {"temperature": 1.0, "presence_penalty": 0.9},
    "frequency": {"temperature": 1.0, "frequency_penalty": 0.6},
    "short window": {"temperature": 1.0, "frequency_penalty": 0.6, "penalty_window": 4},
    "no window": {"temperature": 1.0, "repetition_penalty": 2.0, "penalty_window": 0},
    "bias": {"temperature": 1.0, "logit_bias": {9: -3.0, 20: 4.0, 49: 1.0}},
    "all": {
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.005,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.4,
        "frequency_penalty": -0.3,
        "penalty_window": 6,
        "logit_bias": {9: 2.0, 11: 1.0},
    },
}


def logits_of(seed: int, rows: int = 1) -> mx.array:
    return 2.0 * mx.random.normal((rows, SIZE), key=mx.random.key(seed))


def theirs(logits: mx.array, params: SamplingParams) -> np.ndarray:
    """Probabilities by mlx-lm's own functions, in the order in which it calls them."""
    window = params.penalty_window
    for processor in make_logits_processors(
        dict(params.logit_bias),
        params.repetition_penalty,
        window,
        params.presence_penalty,
        window,
        params.frequency_penalty,
        window,
    ):
        logits = processor(mx.array(HISTORY), mx.array(logits))
    logprobs = logits - mx.logsumexp(logits, keepdims=True)
    if 0 < params.top_p < 1:
        logprobs = apply_top_p(logprobs, params.top_p)
    if params.min_p:
        logprobs = apply_min_p(logprobs, params.min_p)
    if params.top_k:
        logprobs = apply_top_k(logprobs, params.top_k)
    return np.array(mx.softmax(logprobs / params.temperature, axis=-1))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_distribution_is_that_of_mlx_lm(name: str, seed: int) -> None:
    params = SamplingParams(**CASES[name], logprobs=0)
    given = options([Choice(params, [*HISTORY, 1, 1], len(HISTORY))], SIZE)
    logits, _, _, kept = process(logits_of(seed), *given.arrays[2:])
    ours = mx.softmax(mx.where(kept, logits, -mx.inf) / params.temperature, axis=-1)
    np.testing.assert_allclose(np.array(ours), theirs(logits_of(seed), params), atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "filters"])
def test_draws_follow_the_distribution(name: str) -> None:
    """Chi-square over 4,000 positions of one seed, at 1 in 10,000 for a false alarm."""
    params = SamplingParams(**CASES[name], seed=11)
    rows, batches = 200, 20
    counts = np.zeros(SIZE)
    for batch in range(batches):
        wanted = [Choice(params, (), batch * rows + n) for n in range(rows)]
        given = options(wanted, SIZE)
        logits = mx.broadcast_to(logits_of(1), (rows, SIZE))
        tokens = choose(given.variant, logits, *given.arrays)[0]
        counts += np.bincount(np.array(tokens), minlength=SIZE)
    wanted_counts = rows * batches * theirs(logits_of(1), params)[0]
    assert not counts[wanted_counts == 0].any()
    large = wanted_counts >= 5
    cells = np.append(wanted_counts[large], wanted_counts[~large].sum())
    seen = np.append(counts[large], counts[~large].sum())
    cells, seen = cells[cells > 0], seen[cells > 0]
    statistic = float((((seen - cells) ** 2) / cells).sum())
    freedom = len(cells) - 1
    # Wilson and Hilferty's approximation of the chi-square quantile; 3.72 is the normal's.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert statistic < limit


def test_token_does_not_depend_on_the_batch() -> None:
    mixture = [
        SamplingParams(temperature=1.0, seed=3),
        SamplingParams(),
        SamplingParams(temperature=0.8, top_p=0.9, seed=(1 << 64) - 1),
        SamplingParams(temperature=1.2, repetition_penalty=1.3, seed=3),
        SamplingParams(logprobs=5),
    ]
    wanted = [Choice(p, HISTORY, len(HISTORY)) for p in mixture]
    logits = logits_of(8, len(mixture))
    given = options(wanted, SIZE)
    together = choose(given.variant, logits, *given.arrays)[0].tolist()
    for n, choice in enumerate(wanted):
        alone = options([choice], SIZE)
        assert choose(alone.variant, logits[n : n + 1], *alone.arrays)[0].tolist() == [together[n]]


def test_keys_differ_by_seed_and_position() -> None:
    keys = {sampling_key(seed, position) for seed in range(100) for position in range(100)}
    assert len(keys) == 10_000
    assert sampling_key(1, 2) != sampling_key(2, 1)
    # Fixed for ever: stages of different versions must draw the same tokens.
    assert sampling_key(5, 7) == (2393187995, 1960764092)


def test_more_changed_logits_than_the_compiled_graph_takes() -> None:
    bias = {token: -100.0 for token in range(SIZE) if token != 33}
    given = options([Choice(SamplingParams(logit_bias=bias), (), 0)], SIZE)
    assert given.width == 128
    assert choose(given.variant, logits_of(2), *given.arrays)[0].tolist() == [33]


def test_ids_outside_the_vocabulary_are_passed_over() -> None:
    params = SamplingParams(logit_bias={SIZE: 100.0, -1: 100.0}, repetition_penalty=1.1)
    given = options([Choice(params, [SIZE + 7], 1)], SIZE)
    tokens = choose(given.variant, logits_of(2), *given.arrays)[0]
    assert tokens.tolist() == mx.argmax(logits_of(2), axis=-1).tolist()


def test_tiny_temperature_is_greedy() -> None:
    given = options([Choice(SamplingParams(temperature=1e-30), (), 0)], SIZE)
    tokens = choose(given.variant, logits_of(4), *given.arrays)[0]
    assert tokens.tolist() == mx.argmax(logits_of(4), axis=-1).tolist()


def test_greedy_rows_do_no_more_than_argmax() -> None:
    assert options([Choice(SamplingParams(), HISTORY, 10)], SIZE).variant is Variant.GREEDY
    assert options([Choice(SamplingParams(temperature=1), (), 0)], SIZE).variant is Variant.NOISE


SAMPLED = SamplingParams(temperature=1.0, top_p=0.95, repetition_penalty=1.1, seed=5)


def test_replay_gives_the_same_tokens_at_temperature(tiny: MakeTiny) -> None:
    """From another split, in other chunks, compiled or not, and as one verification."""
    folder = tiny("llama", None).folder
    first = Pipe(load_split(folder, (0, 2, 4)), SAMPLED).generate(PROMPT, 24)
    assert len(set(first)) >= 8
    stages = load_split(folder, (0, 1, 3, 4))
    for stage in stages:
        stage.warm()
    pipe = Pipe(stages, SAMPLED)
    assert pipe.generate(PROMPT, 24, chunk=7) == first
    pipe.trim(len(PROMPT) + 9)
    assert pipe.generate(first[9:10], 8) == first[10:18]
    verified = Pipe(stages, SAMPLED).feed([*PROMPT, *first[:6]], 7)
    assert tuple(verified.tokens) == first[:7]


def test_logprobs_are_those_of_the_model(tiny: MakeTiny) -> None:
    from mlx_lm.utils import load_model

    folder = tiny("qwen3", None).folder
    model, _ = load_model(folder)
    logits = model(mx.array([PROMPT]))[0, -2:]
    expected = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    sampled = Pipe(load_split(folder, (0, 2, 4)), SamplingParams(logprobs=3)).feed(PROMPT, 2)
    assert sampled.logprobs is not None
    for n, entry in enumerate(sampled.logprobs):
        order = mx.argsort(-expected[n])[:3].tolist()
        assert [token for token, _ in entry["top"]] == order
        assert sampled.tokens[n] == order[0]
        values = [value for _, value in entry["top"]]
        np.testing.assert_allclose(values, np.array(expected[n][mx.array(order)]), atol=1e-5)
        assert entry["logprob"] == pytest.approx(values[0])
    none = Pipe(load_split(folder, (0, 4)), SamplingParams(logprobs=0)).feed(PROMPT)
    assert none.logprobs is not None
    assert none.logprobs[0]["top"] == []
