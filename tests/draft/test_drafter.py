"""A drafter guesses what its model would generate, and computes nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from daemon.draft.drafter import AHEAD, RECENT, Drafter, Guess, Lag
from daemon.embedded import DRAFT
from daemon.engine.stage import Stage
from daemon.footprint import StageMemory
from daemon.history import EMPTY_HASH, History
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from tests.draft.talk import (
    GREEDY,
    PROMPT,
    S1,
    S2,
    S3,
    Counting,
    ask,
    continuation,
    finish,
    sampled,
)
from tests.engine.tiny import PROMPT as TINY_PROMPT
from tests.engine.tiny import Tiny

MakeTiny = Callable[[str, int | None], Tiny]
BUDGET = 1 << 30
NOISE = SamplingParams(temperature=0.9, seed=(1 << 64) - 5)


@pytest.fixture
def counting(embedded: Stage) -> Counting:
    return Counting(embedded)


@pytest.fixture
def drafter(counting: Counting) -> Drafter:
    made = Drafter(cast(Stage, counting), BUDGET, 256)
    counting.taken()
    return made


def test_it_guesses_what_mlx_lm_generates(drafter: Drafter) -> None:
    assert ask(drafter, S1, PROMPT, 40) is None
    assert finish(drafter, {S1: PROMPT})[S1] == continuation(DRAFT, PROMPT, 40)


@pytest.mark.parametrize("params", [NOISE, SamplingParams(temperature=0.7, top_p=0.9, logprobs=3)])
def test_its_noise_is_the_engines_own(
    drafter: Drafter, embedded: Stage, params: SamplingParams
) -> None:
    ask(drafter, S1, PROMPT, 24, params=params)
    assert finish(drafter, {S1: PROMPT})[S1] == sampled(embedded, PROMPT, 24, params)


def test_what_it_guessed_itself_is_not_computed_again(drafter: Drafter, counting: Counting) -> None:
    line = continuation(DRAFT, PROMPT, 12)
    ask(drafter, S1, PROMPT, 6)
    finish(drafter, {S1: PROMPT})
    assert counting.taken() == len(PROMPT) + 5  # the last guess is not taken in yet
    told = [*PROMPT, *line[:4]]
    again = ask(drafter, S1, told, 8, since=len(PROMPT))
    assert again == Guess(S1, len(told), History(told).hash_at(len(told)), tuple(line[4:6]))
    assert finish(drafter, {S1: [*told, *line[4:6]]})[S1] == line[6:12]
    assert counting.taken() == 6


def test_a_refuted_guess_costs_only_what_came_after_it(
    drafter: Drafter, counting: Counting
) -> None:
    line = continuation(DRAFT, PROMPT, 6)
    ask(drafter, S1, PROMPT, 6)
    finish(drafter, {S1: PROMPT})
    counting.taken()
    told = (*PROMPT, *line[:2], (line[2] + 1) % 1024)
    assert ask(drafter, S1, told, 5, since=len(PROMPT)) is None
    assert finish(drafter, {S1: told})[S1] == continuation(DRAFT, told, 5)
    assert counting.taken() == 5  # the new token and four guesses


def test_a_word_in_the_middle_replaces_the_one_before(drafter: Drafter) -> None:
    ask(drafter, S1, PROMPT, 30)
    first = [drafter.step() for _ in range(3)]
    assert all(len(guesses) == 1 for guesses in first)
    told = (*PROMPT, 7, 8)
    ask(drafter, S1, told, 4, since=len(PROMPT))
    assert finish(drafter, {S1: told})[S1] == continuation(DRAFT, told, 4)


def test_following_takes_in_all_but_the_last(drafter: Drafter, counting: Counting) -> None:
    assert ask(drafter, S1, PROMPT, 0) is None
    assert finish(drafter, {S1: PROMPT})[S1] == []
    assert counting.taken() == len(PROMPT) - 1
    ask(drafter, S1, PROMPT, 3, since=len(PROMPT))
    assert finish(drafter, {S1: PROMPT})[S1] == continuation(DRAFT, PROMPT, 3)
    assert counting.taken() == 3


def test_other_parameters_are_other_guesses(drafter: Drafter, embedded: Stage) -> None:
    ask(drafter, S1, PROMPT, 6)
    finish(drafter, {S1: PROMPT})
    assert ask(drafter, S1, PROMPT, 6, since=len(PROMPT), params=NOISE) is None
    assert finish(drafter, {S1: PROMPT})[S1] == sampled(embedded, PROMPT, 6, NOISE)


def test_several_go_in_one_pass(drafter: Drafter, counting: Counting, embedded: Stage) -> None:
    prompts = {S1: PROMPT, S2: PROMPT[:9], S3: (*PROMPT, 5)}
    for sequence, prompt in prompts.items():
        ask(drafter, sequence, prompt, 10)
    found = finish(drafter, dict(prompts))
    assert found == {key: continuation(DRAFT, prompt, 10) for key, prompt in prompts.items()}
    assert len(counting.passes) == 10
    assert all(len(rows) == 3 for rows in counting.passes)


def test_one_that_comes_later_joins_with_all_its_tokens(
    drafter: Drafter, counting: Counting
) -> None:
    ask(drafter, S1, PROMPT, 8)
    drafter.step()
    ask(drafter, S2, PROMPT[3:], 4)
    drafter.step()
    assert counting.passes[1] == [1, len(PROMPT) - 3]


def test_a_long_prompt_is_taken_in_in_pieces_between_the_others_tokens(
    drafter: Drafter, counting: Counting
) -> None:
    long = tuple((7 * n) % 1000 for n in range(700))
    ask(drafter, S1, PROMPT, 30)
    ask(drafter, S2, long, 2)
    said = finish(drafter, {S1: PROMPT, S2: long})
    assert said == {S1: continuation(DRAFT, PROMPT, 30), S2: continuation(DRAFT, long, 2)}
    assert counting.passes[:6] == [[30], [256], [1], [256], [1], [188]]


def test_it_says_how_much_it_holds(drafter: Drafter) -> None:
    assert ask(drafter, S1, PROMPT, 4, since=3) == Lag(S1, 0)
    assert not drafter.busy
    ask(drafter, S1, PROMPT, 2)
    finish(drafter, {S1: PROMPT})
    longer = [*PROMPT, 1, 2, 3, 4]
    assert ask(drafter, S1, longer, 4, since=len(longer)) == Lag(S1, len(PROMPT) + 2)
    other = [0, *PROMPT[1:], 9]
    assert ask(drafter, S1, other, 4, since=len(PROMPT)) == Lag(S1, 0)
    ask(drafter, S1, (*other,), 3)  # told in full, it goes on
    assert finish(drafter, {S1: other})[S1] == continuation(DRAFT, (*other,), 3)


def test_who_was_not_asked_for_lately_goes_first(embedded: Stage) -> None:
    drafter = Drafter(embedded, BUDGET, 256, most=2)
    ask(drafter, S1, PROMPT, 1, now=0.0)
    ask(drafter, S2, PROMPT, 1, now=1.0)
    assert ask(drafter, S3, PROMPT, 1, now=RECENT - 1) is None
    assert len(drafter) == 2  # there was no room for it
    ask(drafter, S1, PROMPT, 1, now=RECENT)
    ask(drafter, S3, PROMPT, 1, now=RECENT + 1)
    assert ask(drafter, S2, PROMPT, 1, since=1, now=RECENT + 2) == Lag(S2, 0)
    assert ask(drafter, S1, PROMPT, 1, since=1, now=RECENT + 3) is None


def test_the_budget_bounds_all_of_them(embedded: Stage) -> None:
    memory = StageMemory(0, embedded.footprints())
    budget = memory.bytes_for(0, 40) + memory.bytes_for(0, 60)
    drafter = Drafter(embedded, budget, 256)
    ask(drafter, S1, PROMPT, 10)
    ask(drafter, S2, PROMPT, 30)
    ask(drafter, S3, PROMPT, 1)
    assert len(drafter) == 2
    ask(drafter, S3, PROMPT, 1, now=RECENT + 1)
    assert len(drafter) == 2
    ask(drafter, S1, range(900), 1, now=2 * RECENT)  # never fits
    assert ask(drafter, S1, range(900), 1, since=900, now=2 * RECENT) == Lag(S1, 0)
    finish(drafter, {S1: PROMPT, S2: PROMPT, S3: PROMPT})


def test_what_ended_is_forgotten_in_time(drafter: Drafter) -> None:
    ask(drafter, S1, PROMPT, 1, now=1.0)
    ask(drafter, S2, PROMPT, 1, now=2.0)
    drafter.expire(2.0)
    assert len(drafter) == 1


def test_a_new_sequence_begins_from_another_with_the_same_beginning(
    drafter: Drafter, counting: Counting
) -> None:
    ask(drafter, S1, PROMPT, 6)
    line = finish(drafter, {S1: PROMPT})[S1]
    counting.taken()
    told = (*PROMPT, *line[:3], 11, 12)
    ask(drafter, S2, told, 2)
    assert finish(drafter, {S2: told})[S2] == continuation(DRAFT, told, 2)
    assert counting.taken() == 3
    ask(drafter, S1, [*PROMPT, *line], 2, since=len(PROMPT))  # whose own cache is unharmed
    both = (*PROMPT, *line)
    assert finish(drafter, {S1: both})[S1] == continuation(DRAFT, both, 2)


def test_no_more_is_guessed_than_can_be_of_use(drafter: Drafter) -> None:
    ask(drafter, S1, PROMPT, 1 << 40)
    assert len(finish(drafter, {S1: PROMPT})[S1]) == AHEAD
    end = [3] * 4094  # the model was trained for 4096
    ask(drafter, S2, end, 9)
    assert len(finish(drafter, {S2: end})[S2]) == 2


def test_nothing_is_guessed_after_nothing(drafter: Drafter) -> None:
    assert ask(drafter, S1, (), 3) is None
    assert not drafter.busy
    assert drafter.step() == []
    ask(drafter, S1, PROMPT, 2)
    assert finish(drafter, {S1: PROMPT})[S1] == continuation(DRAFT, PROMPT, 2)


@pytest.mark.parametrize(
    ("tokens", "constants"),
    [
        ([1024], {"sampling": GREEDY.to_wire()}),
        ([1], {}),
        ([1], {"sampling": 3}),
        ([1], {"sampling": {"temperature": -1.0}}),
        ([1], {"sampling": {"heat": 1.0}}),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    drafter: Drafter, tokens: list[int], constants: dict[str, Any]
) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        drafter.propose(S1, 0, EMPTY_HASH, tokens, 5, constants, 0.0)
    assert len(drafter) == 0


def test_caches_that_cannot_go_back_are_filled_again(tiny: MakeTiny) -> None:
    """Windows of eight tokens: what is refuted lies further back than they keep."""
    model = tiny("gemma3_text", None)
    drafter = Drafter(Stage.load(model.folder, LayerRange(0, model.layers)), BUDGET, 16)
    prompt = tuple(TINY_PROMPT)
    ask(drafter, S1, prompt, 32)
    assert finish(drafter, {S1: prompt})[S1] == [*model.reference]
    long = tuple((11 * n) % 150 for n in range(250))
    ask(drafter, S2, long, 1)
    finish(drafter, {S2: long})
    back = (*long[:60], 5)
    ask(drafter, S2, back, 8)
    assert finish(drafter, {S2: back})[S2] == continuation(model.folder, back, 8)
