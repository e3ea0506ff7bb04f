"""Guesses with real workers and models: whether they are right or wrong, where they end, and what
else happens to a sequence meanwhile changes no token and no reason to end.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from daemon.fidelity import Fidelity
from daemon.sampling import SamplingParams
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.request import FinishReason
from daemon.scheduler.sequence import Sequence as Running
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, VOCABULARY, Tiny
from tests.stage.test_pipeline import Rig

A, B = b"a" * 16, b"b" * 16
KINDS = [("llama", 0), ("qwen3", 8), ("qwen3", 4), ("gemma3_text", 0), ("gpt_oss", 0),
         ("deepseek_v3", 0), ("qwen3_moe", 0)]  # fmt: skip
SAMPLING = {
    "plain": {"temperature": 1.0},
    "top_p": {"temperature": 0.7, "top_p": 0.9},
    "top_k, min_p": {"temperature": 1.2, "top_k": 40, "min_p": 0.02},
    "penalties": {
        "temperature": 0.9,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "penalty_window": 6,
    },
    "greedy, penalties": {"repetition_penalty": 1.3, "penalty_window": 8},
}


class Told:
    """Guesses what it was told that comes, right about as often as not."""

    def __init__(self, answers: Mapping[bytes, Sequence[int]], share: float = 0.7) -> None:
        self.answers = answers
        self._share = share
        self._rng = random.Random(4)

    def guess(self, sequence: Running, most: int) -> list[int]:
        start = sequence.generated + len(sequence.guesses)
        right = self.answers[sequence.id][start : start + most]
        wrong = self._rng.randrange
        return [t if self._rng.random() < self._share else wrong(VOCABULARY) for t in right]


def without(model: Tiny, count: int, **options: object) -> list[int]:
    """The tokens that are generated where nothing is guessed."""
    rig = plain(model)
    rig.submit(A, count, **options)  # type: ignore[arg-type]
    rig.run()
    return rig.tokens[A]


def plain(model: Tiny, **limits: int) -> Rig:
    options = Limits(speculate=False, **limits)  # type: ignore[arg-type]
    return Rig(model, cuts=(0, 2, model.layers), limits=options)


def guessing(
    model: Tiny, answers: Mapping[bytes, Sequence[int]], share: float = 0.7, **options: Any
) -> Rig:
    return Rig(model, cuts=(0, 2, model.layers), guesser=Told(answers, share), **options)


def judged(rig: Rig) -> tuple[int, int]:
    counts = rig.scheduler.status()["speculation"]
    return counts["right"], counts["wrong"]


@pytest.mark.parametrize(("architecture", "kv_bits"), KINDS)
def test_caches_of_every_kind_give_up_what_was_wrong(
    architecture: str, kv_bits: int, tiny: MakeTiny
) -> None:
    model = tiny(architecture, None)
    expected = without(model, 32, fidelity=Fidelity(kv_bits))
    rig = guessing(model, {A: expected})
    rig.submit(A, 32, fidelity=Fidelity(kv_bits))
    rig.run()
    assert rig.tokens[A] == expected
    assert min(judged(rig)) >= 3, "nothing was right, or nothing wrong"
    assert rig.reissues == 0, "something was not held any more"


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.parametrize("seed", [1, 2])
def test_sampling_is_the_same_whatever_is_guessed(name: str, seed: int, tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    params = SamplingParams(**SAMPLING[name], seed=seed)  # type: ignore[arg-type]
    expected = without(model, 40, params=params)
    rig = guessing(model, {A: expected})
    rig.submit(A, 40, params)
    rig.run()
    assert rig.tokens[A] == expected
    assert min(judged(rig)) >= 3


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_it_ends_where_it_would_have_ended(share: float, tiny: MakeTiny) -> None:
    """At each of some places inside windows of guesses: by its length, and by a stop token."""
    model = tiny("llama", None)
    answer = [*model.reference]
    for count in range(2, 14):
        rig = guessing(model, {A: answer, B: answer}, share)
        rig.submit(A, count)
        rig.run()
        rig.submit(B, 30, stop=[answer[count]])
        rig.run()
        where = answer.index(answer[count])
        assert (rig.tokens[A], rig.finished[A].reason) == (answer[:count], FinishReason.LENGTH)
        assert rig.tokens.get(B, []) == answer[:where]
        assert rig.finished[B].reason is FinishReason.STOP
        assert rig.finished[A].usage.completion_tokens == count


def test_with_logprobs_nothing_is_guessed(tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    rig = guessing(model, {A: model.reference}, 1.0)
    rig.submit(A, 20, SamplingParams(logprobs=2))
    rig.run()
    assert tuple(rig.tokens[A]) == model.reference[:20]
    assert rig.scheduler.status()["speculation"]["sent"] == 0


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
@pytest.mark.parametrize("turns", range(9, 40, 5))
def test_what_is_kept_of_one_that_was_cancelled_is_right(
    architecture: str, turns: int, tiny: MakeTiny
) -> None:
    """However many guesses were under way: the next turn starts from it, also with guesses."""
    model = tiny(architecture, None)
    answers: dict[bytes, Sequence[int]] = {A: model.reference}
    rig = guessing(model, answers)
    rig.submit(A, 30)
    rig.turns(turns)
    rig.perform(rig.scheduler.finish(A, FinishReason.STOP, rig.now))  # a stop string
    rig.run()
    got = rig.tokens.get(A, [])
    assert tuple(got) == model.reference[: len(got)]
    turn = [*PROMPT, *got, 5, 6, 7]
    alone = plain(model, max_kept=0)
    alone.submit(B, 20, prompt=turn)
    alone.run()
    answers[B] = alone.tokens[B]
    rig.submit(B, 20, prompt=turn)
    rig.run()
    assert rig.tokens[B] == alone.tokens[B]
    assert rig.finished[B].usage.cached_tokens > 0 or len(got) < 1


def test_those_that_share_and_are_preempted_guess_on(tiny: MakeTiny) -> None:
    """Two that begin alike, with memory for both only in the beginning."""
    model = tiny("llama", None)
    other = [*PROMPT[:-1], 21]
    second = without(model, 60, prompt=other)
    first = without(model, 60)
    footprint = plain(model).workers[0].stage.footprints()[0]
    budget = footprint.bytes_for(60) + footprint.bytes_for(40)
    limits = Limits(headroom=8)
    rig = guessing(model, {A: first, B: second}, budget=budget, limits=limits)
    rig.submit(A, 60)
    rig.submit(B, 60, prompt=other)
    rig.run()
    assert rig.scheduler.residency.counts["preemptions"] >= 1
    assert (rig.tokens[A], rig.tokens[B]) == (first, second)
    assert min(judged(rig)) >= 3


@pytest.mark.parametrize("seed", range(4))
def test_losses_change_no_token_of_what_is_guessed(seed: int, tiny: MakeTiny) -> None:
    model = tiny("gemma3_text", None)
    rig = Rig(model, seed, (0, 2, model.layers), guesser=Told({A: model.reference}))
    rig.faults(drop=0.2, duplicate=0.1)
    rig.submit(A, 30)
    rig.run()
    assert tuple(rig.tokens[A]) == model.reference[:30]
    assert rig.reissues > 0
