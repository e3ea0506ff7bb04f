"""Prefix reuse with real workers and models: what is forked, evicted and preempted on the way
changes no token.
"""

from __future__ import annotations

import random

import pytest

from daemon.fidelity import Fidelity
from daemon.scheduler.pipeline import Limits
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT
from tests.stage.test_pipeline import Rig

A, B = b"a" * 16, b"b" * 16
ARCHITECTURES = [("llama", 0), ("qwen3", 8), ("gemma3_text", 0), ("gpt_oss", 0), ("deepseek_v3", 0)]


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.mark.parametrize(("architecture", "kv_bits"), ARCHITECTURES)
def test_the_next_turn_computes_only_what_is_new(
    architecture: str, kv_bits: int, tiny: MakeTiny
) -> None:
    """Tokens of the answer are part of what is reused; windows and quantised keys too."""
    model = tiny(architecture, None)
    rig, alone = (Rig(model, cuts=(0, 2, model.layers), limits=Limits(max_kept=n)) for n in (9, 0))
    rig.submit(A, 12, fidelity=Fidelity(kv_bits))
    rig.run()
    turn = [*PROMPT, *rig.tokens[A], 5, 6, 7]
    for one in (rig, alone):
        one.submit(B, 12, fidelity=Fidelity(kv_bits), prompt=turn)
        one.run()
    assert rig.tokens[B] == alone.tokens[B]
    assert rig.finished[B].usage.cached_tokens == len(PROMPT) + 11
    assert alone.finished[B].usage.cached_tokens == 0
    assert rig.reissues == 0
    assert [set(worker.ledger.held()) for worker in rig.workers] == [{B}, {B}], "A is part of B"


def test_running_sequences_share_a_prompt(tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    rig = Rig(model)
    rig.submit(A, 30)
    while not rig.tokens.get(A):
        rig.turn()
    for number in range(3):
        rig.submit(name(number), 20, prompt=PROMPT)
    rig.run()
    for number in range(3):
        assert tuple(rig.tokens[name(number)]) == model.reference[:20]
        assert rig.finished[name(number)].usage.cached_tokens == len(PROMPT) - 1
    assert tuple(rig.tokens[A]) == model.reference[:30]


@pytest.mark.parametrize(("architecture", "kv_bits"), ARCHITECTURES[:3])
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2))])
def test_forks_evictions_and_faults_change_no_token(
    architecture: str, kv_bits: int, seed: int, tiny: MakeTiny
) -> None:
    model, rng = tiny(architecture, None), random.Random(seed)
    cuts = (0, 2, model.layers)
    rig = Rig(model, seed, cuts, Limits(max_kept=4, headroom=4), budget=1_200_000)
    rig.faults(drop=0.03, duplicate=0.05, reorder=0.05, hold=0.05)
    alone = Rig(model, cuts=cuts, limits=Limits(max_kept=0))
    histories: list[list[int]] = [list(PROMPT)]
    for number in range(14):
        base = rng.choice(histories)
        prompt = [*base[: rng.randint(len(base) // 2, len(base))], rng.randrange(100)]
        count = rng.randint(2, 20)
        for one in (rig, alone):
            one.submit(name(number), count, fidelity=Fidelity(kv_bits), prompt=prompt)
        alone.run()
        histories.append([*prompt, *alone.tokens[name(number)]])
        for _ in range(rng.randint(0, 60)):
            rig.advance()
        if rng.random() < 0.2 and (kept := rig.scheduler.residency.index.kept):
            rig.perform(rig.scheduler.evict(rng.choice(kept).sequence, rig.now))
    rig.run()
    assert rig.tokens == alone.tokens
    assert rig.scheduler.residency.counts["hits"] >= 2
    for entry in rig.scheduler.residency.index.kept:
        rig.perform(rig.scheduler.evict(entry.sequence, rig.now))
    rig.run()
    assert all(not worker.caches for worker in rig.workers)


def test_memory_is_never_more_than_the_budget(tiny: MakeTiny) -> None:
    """Of the caches themselves, not of the account; requests wait, are preempted, and end."""
    model = tiny("llama", None)
    budget = 260_000
    rig = Rig(model, limits=Limits(headroom=4), budget=budget)
    for number in range(8):
        rig.submit(name(number), 60, prompt=[number + 1, *PROMPT])
    most = 0
    while rig.scheduler.next_wake() is not None:
        rig.turn()
        most = max(most, *(worker.kv_bytes for worker in rig.workers))
    alone = Rig(model, limits=Limits(max_kept=0))
    for number in range(8):
        alone.submit(name(number), 60, prompt=[number + 1, *PROMPT])
        alone.run()
    assert rig.tokens == alone.tokens
    assert budget // 2 < most <= budget
    assert rig.scheduler.residency.counts["preemptions"] > 0
