"""Sequences computed together give the tokens that each gives alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest

from daemon.batching import Batching
from daemon.engine.caches import SequenceCache
from daemon.engine.model import SUPPORTED
from daemon.engine.ragged import BatchStates
from daemon.engine.stage import Row, Stage
from daemon.engine.states import StateCache
from daemon.sampling import SamplingParams
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import GREEDY, PROMPT, Pipe, load_split

PROMPTS = (PROMPT, PROMPT[:5], PROMPT[3:4], PROMPT[::-1])
STEPS = 12


class Batch:
    """Stages one behind the other, for several sequences."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self.caches: dict[int, list[SequenceCache]] = {}
        self.tokens: dict[int, list[int]] = {}

    def join(self, name: int, prompt: Sequence[int], kv_bits: int = 0) -> None:
        """Prefill all but the last token."""
        self.caches[name] = [stage.new_cache(kv_bits) for stage in self.stages]
        self.tokens[name] = list(prompt)
        if prompt[1:]:
            self.run({name: len(prompt) - 1}, outputs=0)

    def run(
        self, spans: dict[int, int], outputs: int = 1, params: SamplingParams = GREEDY
    ) -> dict[int, list[int]]:
        """The next so many known tokens of each; what is chosen after the last ones."""
        carry: Any = None
        for index, stage in enumerate(self.stages):
            rows = []
            for name, n in spans.items():
                cache = self.caches[name][index]
                known = self.tokens[name][: cache.length + n]
                rows.append(Row(cache, known[cache.length :], known, min(outputs, n), params))
            carry = stage.run(rows, carry)
            for row in rows:
                row.cache.check_integrity()
        return {name: out.tokens for name, out in zip(spans, carry, strict=True)}

    def step(self, *names: int) -> None:
        for name, tokens in self.run(dict.fromkeys(names, 1)).items():
            self.tokens[name] += tokens

    def trim(self, name: int, length: int) -> None:
        for cache in self.caches[name]:
            assert cache.trim(length) == length


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_what_of_each_architecture_runs_together(architecture: str, tiny: MakeTiny) -> None:
    model = tiny(architecture, None)
    found = {stage.batching for stage in load_split(model.folder, (0, 2, model.layers))}
    # The latent keys of deepseek_v3 are multiplied by its own code.
    assert found == {Batching.PADDED if architecture == "deepseek_v3" else Batching.SPANS}


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("architecture", SUPPORTED)
def test_steps_together_are_steps_alone(
    architecture: str, bits: int | None, tiny: MakeTiny
) -> None:
    """All lengths differ; the first prompt is longer than the sliding windows."""
    model = tiny(architecture, bits)
    stages = load_split(model.folder, (0, 2, model.layers))
    alone = [Pipe(stages).generate(prompt, STEPS) for prompt in PROMPTS]
    assert alone[0] == model.reference[:STEPS]
    batch = Batch(stages)
    for name, prompt in enumerate(PROMPTS):
        batch.join(name, prompt)
    for _ in range(STEPS):
        batch.step(0, 1, 2, 3)
    assert [tuple(batch.tokens[n][len(p) :]) for n, p in enumerate(PROMPTS)] == alone


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text"])
def test_exact_and_quantised_kv_in_one_step(architecture: str, tiny: MakeTiny) -> None:
    model = tiny(architecture, None)
    stages = load_split(model.folder, (0, 2, model.layers))
    batch = Batch(stages)
    for bits in (0, 8, 4):
        batch.join(bits, PROMPT, bits)
    for _ in range(STEPS):
        batch.step(4, 0, 8)
    for bits in (0, 8, 4):
        alone = Pipe(stages, kv_bits=bits).generate(PROMPT, STEPS)
        assert tuple(batch.tokens[bits][len(PROMPT) :]) == alone


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3))])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "deepseek_v3"])
def test_sequences_come_go_and_are_trimmed_between_steps(
    architecture: str, seed: int, tiny: MakeTiny
) -> None:
    rng = random.Random(seed)
    model = tiny(architecture, None)
    stages = load_split(model.folder, (0, 3, model.layers))
    batch = Batch(stages)
    lengths: dict[int, int] = {}
    for turn in range(30):
        if rng.random() < 0.4:
            prompt = rng.choices(range(100), k=rng.randint(1, 30))
            batch.join(turn, prompt)
            lengths[turn] = len(prompt)
        going = [n for n in lengths if rng.random() < 0.8]
        if going:
            batch.step(*rng.sample(going, len(going)))
        for name in going:
            if rng.random() < 0.1:  # what came after a position is to be computed again
                tokens = batch.tokens[name]
                back = rng.randint(0, min(5, len(tokens) - lengths[name]))
                del tokens[len(tokens) - back :]
                batch.trim(name, len(tokens) - 1)
    for name, length in lengths.items():
        tokens = batch.tokens[name]
        expected = Pipe(stages).generate(tokens[:length], max(1, len(tokens) - length))
        assert tuple(tokens[length:]) == expected[: len(tokens) - length]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3"])
def test_several_positions_of_one_beside_single_ones_of_others(
    architecture: str, tiny: MakeTiny
) -> None:
    """A verification in a batch: the drafted tokens are right up to the third."""
    model = tiny(architecture, None)
    batch = Batch(load_split(model.folder, (0, 1, model.layers)))
    batch.join(0, PROMPT)
    batch.join(1, PROMPT[:5])
    batch.tokens[0] += [*model.reference[:3], 9, 9]
    chosen = batch.run({1: 1, 0: 6}, outputs=6)
    assert chosen[0][:4] == list(model.reference[:4])
    assert chosen[1] == list(Pipe(batch.stages).generate(PROMPT[:5], 1))
    batch.trim(0, len(PROMPT) + 3)
    batch.tokens[0] = [*PROMPT, *model.reference[:4]]
    batch.tokens[1] += chosen[1]
    batch.step(0, 1)
    assert batch.tokens[0][-1] == model.reference[4]


def test_sampling_options_of_a_row_are_its_own(tiny: MakeTiny) -> None:
    """In a step that is filled up to a compiled size, too."""
    model = tiny("llama", None)
    (stage,) = load_split(model.folder, (0, 4))
    stage.warm()
    every = [
        GREEDY,
        SamplingParams(temperature=1.0, seed=5),
        SamplingParams(temperature=0.7, top_p=0.8, seed=6),
        SamplingParams(repetition_penalty=1.3, logprobs=2),
        SamplingParams(logit_bias={7: 50.0}),
    ]

    def one_step(params: Sequence[SamplingParams]) -> list[Any]:
        caches = [stage.new_cache() for _ in params]
        for cache in caches:
            stage.run([Row(cache, PROMPT, PROMPT, 0, GREEDY)])
        rows = [
            Row(cache, [3], [*PROMPT, 3], 1, p) for cache, p in zip(caches, params, strict=True)
        ]
        return list(stage.run(rows))

    together = one_step(every)
    alone = [one_step([p])[0] for p in every]
    assert [s.tokens for s in together] == [s.tokens for s in alone]
    shown = [s.logprobs and [round(e["logprob"], 4) for e in s.logprobs] for s in together]
    assert shown == [s.logprobs and [round(e["logprob"], 4) for e in s.logprobs] for s in alone]


def test_one_long_sequence_does_not_fill_up_many_short_ones(tiny: MakeTiny) -> None:
    """Padded keys of all would take as much as the longest's for each."""
    (stage,) = load_split(tiny("deepseek_v3", None).folder, (0, 4))
    for lengths, together in (((40, 1, 1, 1), False), ((40, 30, 20, 10), True)):
        rows = []
        for length in lengths:
            cache = stage.new_cache()
            stage.run([Row(cache, [7] * length, [7] * length, 0, GREEDY)])
            rows.append(Row(cache, [3], [*[7] * length, 3], 1, GREEDY))
        assert stage._forward._fit_together(rows, [1] * len(rows)) is together


def test_states_stand_below_each_other_and_stay_apart() -> None:
    states = [StateCache(2) for _ in range(3)]
    batch = BatchStates(states)
    assert batch[0] is None
    batch[0] = mx.arange(6).reshape(3, 2)
    assert [s[0].tolist() for s in states if s[0] is not None] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    states[1][0] = mx.array([[9, 9]])
    held = batch[0]
    assert held is not None
    assert held.tolist() == [[0, 1], [9, 9], [4, 5]]
    assert all(a is not b for a, b in pairwise(states))
