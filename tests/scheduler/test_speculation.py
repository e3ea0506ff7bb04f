"""Guesses: where they come from, how many are worth it, and what becomes of them."""

from __future__ import annotations

import random
from itertools import islice, product
from typing import Any

import pytest

from daemon.history import History
from daemon.scheduler.actions import Propose
from daemon.scheduler.compose import Load, compose
from daemon.scheduler.cost import CostModel, Groups, Pass
from daemon.scheduler.links import LinkCost
from daemon.scheduler.ready import ReadyQueue
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.speculation.acceptance import PRIOR, Acceptance, share_of
from daemon.scheduler.speculation.guesses import Guesses
from daemon.scheduler.speculation.lookup import Lookup
from daemon.scheduler.speculation.speculator import Speculator
from daemon.scheduler.speculation.tempo import NONE, Course, Tempo, choose
from tests.scheduler.harness import A, B, Harness, pipeline, request, show
from transports.frame import Reason, Span, StageTrace


def flat(*stages: float) -> Course:
    """Positions cost nothing more, guesses are there at once, links take no time."""
    return Course.of(lambda n: stages, lambda n: 0.0)


# --- where they come from -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "assumed", "most", "guessed"),
    [
        ("abcdXabc", "", 3, "dXa"),  # what followed the last time
        ("abcdXabc", "dX", 3, "abc"),  # and after that
        ("abcdXbcdYbcd", "", 1, "Y"),  # the latest time counts
        ("abcdXcdYabcd", "", 1, "X"),  # but more tokens that agree count more
        ("ababab", "", 5, "ababa"),  # at the end of what there is, it repeats
        ("aa", "", 3, ""),  # twice the same is no habit yet
        ("aaa", "", 3, "aaa"),
        ("abXb", "", 3, ""),  # one token that agrees is not enough
        ("", "", 3, ""),
        ("a", "", 3, ""),
    ],
)
def test_lookup_finds_what_followed(tokens: str, assumed: str, most: int, guessed: str) -> None:
    ids = [ord(c) for c in tokens]
    for step in range(len(ids)):  # as it grows
        lookup = Lookup()
        lookup.guess(ids[:step], [], 1)
        found = lookup.guess(ids, [ord(c) for c in assumed], most)
        assert "".join(map(chr, found)) == guessed


def test_guesses_carry_the_hash_of_everything_before() -> None:
    history, guesses = History((5, 6)), Guesses()
    guesses.extend(history.hash_at(2), (7, 8))
    guesses.extend(history.hash_at(2), (9,))
    assert [guesses.hash_at(n) for n in (1, 2, 3)] == [
        History((5, 6, 7, 8, 9)[:n]).hash_at(n) for n in (3, 4, 5)
    ]
    assert guesses.matches(7)
    history.extend((7,))
    guesses.check_integrity(history.hash_at(3))
    assert guesses.hash_at(2) == History((5, 6, 7, 8, 9)).hash_at(5)
    assert not guesses.matches(9)
    guesses.clear()
    assert not guesses


def test_acceptance_follows_what_happens() -> None:
    seen = Acceptance()
    assert seen.share == PRIOR
    for _ in range(4):
        seen.judge(False)
    assert seen.share < 0.25  # a few misses are enough to stop
    for _ in range(300):
        seen.judge(True)
    assert seen.share > 0.97


def test_a_sequence_begins_as_others_went() -> None:
    usual = Acceptance()
    before = Acceptance(usual)
    for _ in range(200):
        before.judge(True)
    new = Acceptance(usual)
    assert new.share == usual.share > 0.95
    for _ in range(8):
        new.judge(False)
    assert new.share < 0.25, "what it says itself soon counts more"


def test_levels_are_close_where_a_little_more_means_much_longer_runs() -> None:
    seen, levels = Acceptance(), set()
    for _ in range(400):
        seen.judge(True)
        levels.add(seen.level)
        assert seen.share == pytest.approx(share_of(seen.level), abs=0.1)
    assert len([level for level in levels if share_of(level) > 0.9]) > 5
    assert share_of(0) == 0.0


# --- how many -----------------------------------------------------------------------------------


def test_the_rate_without_guesses_is_one_token_per_round() -> None:
    assert flat(0.2, 0.3).rate(NONE, 0.9) == pytest.approx(2.0)
    slow = Course.of(lambda n: (0.2, 0.2), lambda n: 0.1 + 0.05 * n, groups=3)
    assert slow.rate(NONE, 0.9) == pytest.approx(1 / 0.6)  # three groups keep a stage for longer


@pytest.mark.parametrize("acceptance", [0.0, 0.5, 0.8])
def test_the_rate_of_one_frame_at_a_time(acceptance: float) -> None:
    """Leviathan et al. 2023, eq. 1: (1 - a^(k + 1)) / (1 - a) tokens a round."""
    expected = (1 - acceptance**5) / (1 - acceptance) / 0.5
    assert flat(0.2, 0.3).rate(Tempo(4, 0), acceptance) == pytest.approx(expected)
    drafted = Course.of(lambda n: (0.2, 0.3), lambda n: 0.0, wait=0.1, each=0.02)
    waits = 0.1 + 4 * 0.02
    wrong = 1 - acceptance**5  # else the draft has gone on meanwhile
    promised = drafted.rate(Tempo(4, 0), acceptance)
    assert promised == pytest.approx(expected * 0.5 / (0.5 + wrong * waits))


@pytest.mark.parametrize(("depth", "busy"), [(2, 0.0), (3, 0.1)])
@pytest.mark.parametrize("acceptance", [0.5, 0.9, 0.97])
def test_frames_that_follow_return_as_the_slowest_stage_lets_them(
    acceptance: float, depth: int, busy: float
) -> None:
    """J guesses are right; the frame of the first wrong one is the (J + 1)th. Of three frames under
    way the last is half through the first stage when the first one returns, and never again.
    """
    right = acceptance / (1 - acceptance)
    expected = (right + 1) / (0.5 + 0.3 * right + busy * (1 - acceptance))
    tempo = Tempo(0, 1, depth)
    assert flat(0.2, 0.3).rate(tempo, acceptance) == pytest.approx(expected, rel=1e-3)
    assert flat(0.2, 0.3).rate(tempo, 1.0) < 1 / 0.3


def test_a_cycle_lasts_until_its_refuted_frame_returns_and_the_pass_that_goes_on_has_ended() -> (
    None
):
    """One guess a frame on one stage of a second: the frame of the first wrong guess is the Jth,
    and the next one has just begun.
    """
    acceptance = 0.6
    course = Course.of(lambda n: (1.0,), lambda n: 0.1)
    frames = 1 / (1 - acceptance)
    expected = frames / (frames + 1 + 0.05)
    assert course.rate(Tempo(0, 1, 2), acceptance) == pytest.approx(expected, rel=1e-3)


def test_what_follows_waits_for_its_guesses() -> None:
    """The draft takes longer than the passes: a frame leaves when its guess is there."""
    slow = Course.of(lambda n: (0.2, 0.3), lambda n: 0.0, wait=0.1, each=1.0)
    promised = slow.rate(Tempo(0, 1, 2), 0.9)
    cycles = [0.5, *(0.1 + n + 0.5 for n in range(1, 400))]
    seconds = sum(0.9**n * (1 - 0.9) * cycle for n, cycle in enumerate(cycles))
    assert promised == pytest.approx(1 / (1 - 0.9) / seconds, rel=2e-3)


def test_chosen_by_what_it_promises() -> None:
    dear = Course.of(lambda n: (0.1 * n, 0.1 * n), lambda n: 0.0)  # as on a slow core
    cheap = Course.of(lambda n: (0.1 + 0.02 * n,) * 2, lambda n: 0.0)
    assert choose(dear, 0.3, 15, ahead=False) == NONE
    assert choose(flat(0.0, 0.0), 0.9, 15, ahead=True) == NONE  # nothing is measured yet
    assert choose(cheap, 0.0, 15, ahead=True) == NONE
    assert choose(cheap, 0.8, 15, ahead=False).first >= 3
    assert choose(cheap, 0.8, 15, ahead=False).after == 0
    assert choose(cheap, 0.8, 2, ahead=True).first <= 2
    best = choose(cheap, 0.9, 15, ahead=True)
    assert best.after
    assert cheap.rate(best, 0.9) > 1.1 * cheap.rate(choose(cheap, 0.9, 15, False), 0.9)
    assert choose(dear, 0.9, 15, ahead=True).after == 1  # the other stage is idle anyway


def test_what_links_cost_is_learnt_by_positions() -> None:
    links = LinkCost()
    assert links.seconds(5) == 0.0
    links.learn(1, 0.003)
    assert links.seconds(9) == pytest.approx(0.003)
    for n in (1, 3, 5, 2, 8) * 20:
        links.learn(n, 0.001 + 0.002 * n)
    assert links.seconds(4) == pytest.approx(0.009)
    assert links.per_token == pytest.approx(0.002)


# --- what becomes of them -----------------------------------------------------------------------

PROMPT = (1, 2, 3, 4, 5, 6, 7, 8, 1, 2)  # 3, 4, 5 … follow, as before


def repeating(max_tokens: int = 100, **layout: int) -> Harness:
    """A decodes: 3 was the first token, and 4, 5, 6 … are guessed. A pass of many positions costs
    more than of one, but less than two passes.
    """
    h = Harness(guessing=True, token_millis=30, **layout)
    h.submit(request(A, PROMPT, max_tokens))
    h.computed(h.frames[-1], 3)
    return h


def test_guesses_ride_with_the_token_before_them() -> None:
    h = repeating()
    frame = h.frames[1]
    (span,) = frame.spans
    assert frame.tokens[0] == 3
    assert frame.tokens[1:] == (4, 5, 6, 7)[: span.length - 1]
    assert span.length > 1
    assert (span.position, span.length, span.outputs) == (10, len(frame.tokens), span.length)
    assert span.prefix_hash == History(PROMPT).hash_at(10)


def test_frames_follow_while_it_is_under_way() -> None:
    h = repeating()
    first, second = h.frames[1:3]
    assert second.spans[0].position == first.spans[0].length + 10
    assert second.spans[0].attempt == first.spans[0].attempt
    everything = (*PROMPT, *first.tokens, *second.tokens)
    assert second.spans[0].prefix_hash == History(everything).hash_at(second.spans[0].position)
    assert len(h.frames) - 1 == h.scheduler.status()["speculation"]["tempo"]["depth"]


def test_all_right_delivers_all_and_the_pipe_goes_on() -> None:
    h = repeating()
    first, second = h.frames[1:3]
    answer = (*first.tokens[1:], second.tokens[0])
    assert show(h.computed(first, *answer))[0] == f"deliver A@11 {list(answer)}"
    sequence = next(iter(h.scheduler.sequences()))
    assert sequence.attempt == first.spans[0].attempt
    assert tuple(sequence.history.tokens) == (*PROMPT, 3, *answer)
    assert sequence.assumed == sum(f.spans[0].length for f in h.frames[2:]) - 1


def test_a_refuted_guess_begins_an_attempt_with_the_right_token() -> None:
    h = repeating()
    first, second = h.frames[1:3]
    wrong = [*first.tokens[1:], second.tokens[0]]
    wrong[1] = 99
    h.computed(first, *wrong)
    sequence = next(iter(h.scheduler.sequences()))
    assert tuple(sequence.history.tokens) == (*PROMPT, 3, 4, 99)
    (span,) = h.frames[-1].spans
    assert (span.position, span.attempt) == (12, first.spans[0].attempt + 1)
    assert h.frames[-1].tokens[0] == 99
    assert not h.frames[-1].constants, "every stage has them"
    before = len(h.frames)
    h.computed(second, *(7,) * second.spans[0].outputs)  # it was under way: nobody wants it
    assert len(h.frames) == before
    assert tuple(sequence.history.tokens) == (*PROMPT, 3, 4, 99)
    assert h.scheduler.reissues.total() == 0


def test_a_result_whose_forerunner_is_lost_is_asked_for_again() -> None:
    h = repeating()
    second = h.frames[2]
    h.computed(second, *(5,) * second.spans[0].outputs)
    assert h.scheduler.reissues["lost"] == 1
    again = next(f.spans[0] for f in h.frames if f.spans[0].attempt == 2)
    assert again.position == 10


def test_no_guess_goes_beyond_the_last_token() -> None:
    h = repeating(max_tokens=4)
    assert sum(f.spans[0].length for f in h.frames[1:]) == 3
    h = repeating(context=13)
    assert sum(f.spans[0].length for f in h.frames[1:]) == 2


def test_a_stop_token_ends_it_whatever_was_guessed() -> None:
    h = Harness(guessing=True, token_millis=30)
    h.submit(request(A, PROMPT, 100, stop=(5,)))
    h.computed(h.frames[-1], 3)
    first = h.frames[1]
    h.computed(first, *range(4, 4 + len(first.tokens)))
    assert not list(h.scheduler.sequences())


def test_what_is_kept_ends_before_a_wrong_guess() -> None:
    h = Harness(guessing=True, token_millis=30)
    h.submit(request(A, PROMPT * 2, 100, stop=(99,)))
    h.computed(h.frames[0], *())
    h.computed(h.frames[1], 3)
    frame = h.frames[2]
    assert len(frame.tokens) > 1
    h.computed(frame, *(99,) * frame.spans[0].outputs)
    assert h.scheduler.residency.index.entries[A].tokens == (*PROMPT * 2, 3)


def test_a_guess_that_comes_late_is_dropped() -> None:
    h = Harness(guessing=True, token_millis=30)
    h.keep(h.scheduler.draft_ready(0.01, h.now))
    h.submit(request(A, range(300, 310), 100))
    h.computed(h.frames[0], 3)
    right, other = History((*range(300, 310), 3)), History((*range(300, 310), 4))
    h.keep(h.scheduler.drafted(A, 11, other.hash_at(11), (7,), h.now))
    sequence = next(iter(h.scheduler.sequences()))
    assert not sequence.guesses
    assert h.scheduler.status()["speculation"]["late"] == 1
    h.keep(h.scheduler.drafted(A, 11, right.hash_at(11), (7, 8), h.now))
    assert [*sequence.guesses.tokens] == [7, 8]
    h.keep(h.scheduler.drafted(A, 12, right.hash_at(11), (9,), h.now))  # after other tokens
    assert [*sequence.guesses.tokens] == [7, 8]


def test_a_nack_takes_the_guesses_back() -> None:
    h = repeating()
    h.departed(h.frames[1], Reason.MISSING, held=4)
    sequence = next(iter(h.scheduler.sequences()))
    assert not sequence.guesses
    assert h.frames[-1].spans[0].position == 4


@pytest.mark.parametrize(("load", "goes"), [(Load(1, decoding=1), 2), (Load(2, decoding=2), 0)])
def test_only_what_places_are_left_is_filled_with_guesses(load: Load, goes: int) -> None:
    sequence = Sequence(request(A, PROMPT, 100), 0.0)
    sequence.begin_attempt(0)
    sequence.reserved, sequence.issued = 1000, len(PROMPT) + 1
    sequence.accept((3,), 1000, 0.0)
    queue = ReadyQueue()
    queue.push(sequence)
    assert sequence.id not in queue
    layout = pipeline(token_millis=30)
    cost = CostModel(layout.stages, 16)
    speculator = Speculator(True)
    speculator.configure(layout, cost)
    speculator.among(Groups(1, 1), 0.0)
    speculator.beside(sequence)  # from then on it is known that it may run ahead
    pieces = compose(queue, load, cost, speculator, 0.0)
    assert sum(p.length for p in pieces) == goes


def test_those_that_guess_well_do_not_starve_others() -> None:
    """Two streams on three stages; one's guesses are always right, the other has none."""
    h = Harness(guessing=True, token_millis=30, stages=3)
    h.submit(request(A, PROMPT, 400), request(B, range(500, 510), 400))
    got = dict.fromkeys((A, B), 0)
    fresh = 1000
    for frame in h.frames:  # grows while it is walked through
        tokens: list[int] = []
        for span in frame.spans:
            fresh += 1
            ahead = range(span.position - 6, span.position - 6 + span.length)  # 3, 4, 5 … 8, 1, 2
            said = [1 + n % 8 for n in ahead][-span.outputs :] if span.outputs else []
            tokens += said if span.sequence == A else [fresh] * span.outputs
            got[span.sequence] += span.outputs
        h.computed(frame, *tokens)
        if len(h.frames) > 150:
            break
    assert got[A] > 1.5 * got[B] > 60


@pytest.mark.parametrize("mixed", [True, False])
def test_no_guesses_where_they_would_part_a_batch(mixed: bool) -> None:
    cost = CostModel(pipeline().stages, 16, mixed)
    speculator = Speculator(True)
    speculator.configure(pipeline(), cost)
    sequence = Sequence(request(A, PROMPT, 100), 0.0)
    sequence.begin_attempt(0)
    sequence.reserved, sequence.issued = 1000, len(PROMPT)
    sequence.accept((3,), 1000, 0.0)
    sequence.acceptance.judge(True)
    speculator.among(Groups(2, 2), 0.0)
    assert (speculator.beside(sequence) > 0) == mixed


def test_positions_of_one_sequence_teach_nothing_about_several() -> None:
    cost = CostModel(pipeline().stages, 16)
    before = cost.stage_seconds(Pass(4))[0]
    traces = [StageTrace(i, 0.0, 0.0, 0.5, 0.5) for i in range(2)]
    for _ in range(50):
        cost.observe(Pass.of([Span(A, 1, 30, 4, 0, 4)]), traces, 0.0, 1.0)
    assert cost.stage_seconds(Pass(4))[0] == before
    assert cost.stage_seconds(Pass(4, 120, False, True))[0] == pytest.approx(0.5, rel=0.01)


def test_n_grams_know_how_often_they_would_have_been_right() -> None:
    steady, fickle = Lookup(), Lookup()
    steady.guess([1, 2, 3, 4] * 20, [], 1)
    fickle.guess([n for k in range(20) for n in (1, 2, 3, 100 + k)], [], 1)
    assert steady.acceptance.share > 0.9
    assert fickle.acceptance.share < 0.7  # after 1, 2 always comes 3, after 2, 3 never the same


def test_a_pass_over_more_positions_does_not_take_less() -> None:
    """As two measurements may have it: nothing is guessed where nothing is right."""
    course = Course.of(lambda n: [0.05 if n < 2 else 0.03, 0.02 * n], lambda n: 0.0)
    assert [course.stages[n] for n in (1, 2, 3)] == [(0.05, 0.02), (0.05, 0.04), (0.05, 0.06)]
    assert choose(course, 0.0, 8, ahead=True) == NONE


def test_n_grams_come_before_the_draft() -> None:
    """What repeats itself neither waits for the draft nor asks it."""
    h = Harness(guessing=True, token_millis=30)
    h.keep(h.scheduler.draft_ready(0.01, h.now))
    h.submit(request(A, PROMPT, 100))
    actions = h.computed(h.frames[0], 3)
    assert h.frames[1].tokens[:2] == (3, 4)
    assert not [action for action in actions if isinstance(action, Propose)]


def test_n_grams_that_were_wrong_leave_it_to_the_draft() -> None:
    h = Harness(guessing=True, token_millis=30)
    h.keep(h.scheduler.draft_ready(0.01, h.now))
    h.submit(request(A, [n for k in range(5) for n in (2, 100 + k, 1)], 100))
    actions = h.computed(h.frames[0], 2)
    assert len(h.frames) == 1, "1, 2 was there before, and never went on as the last time"
    assert [action.until > 16 for action in actions if isinstance(action, Propose)] == [True]


def held_back() -> Harness:
    """A decodes, and its first token waits for what a draft may guess."""
    h = Harness(guessing=True, token_millis=30)
    h.keep(h.scheduler.draft_ready(0.01, h.now))
    h.submit(request(A, range(300, 310), 100))
    h.computed(h.frames[0], 3)
    assert len(h.frames) == 1
    return h


def test_a_token_waits_for_guesses_of_the_draft() -> None:
    h = held_back()
    h.keep(h.scheduler.drafted(A, 11, History((*range(300, 310), 3)).hash_at(11), (7,), h.now))
    assert h.frames[1].tokens == (3, 7)


def test_nobody_waits_for_a_draft_that_is_not_worth_it() -> None:
    h = held_back()
    h.scheduler._dispatch.speculator._trial.drafting = False
    h.tick(h.now)
    assert h.frames[1].tokens == (3,)


def test_what_is_delivered_decides_whether_a_draft_is_worth_it() -> None:
    h = Harness(guessing=True, token_millis=30)
    h.keep(h.scheduler.draft_ready(0.01, h.now))
    h.submit(request(A, PROMPT, 500))
    speculator = h.scheduler._dispatch.speculator
    h.computed(h.frames[0], 3)
    assert speculator._trial.drafting
    sequence = next(iter(h.scheduler.sequences()))
    while speculator._trial.drafting and len(sequence.history) < 300:
        h.now += 0.1
        oldest = next(m for m in h.scheduler._dispatch.window if m.spans)
        frame = next(f for f in h.frames if f.microbatch == oldest.id)
        span = frame.spans[0]
        first = span.position + span.length - span.outputs + 1
        h.computed(frame, *(1 + place % 8 for place in range(first, first + span.outputs)))
    assert not speculator._trial.drafting


def test_a_token_does_not_wait_for_ever() -> None:
    h = held_back()
    wake = h.scheduler.next_wake()
    assert wake is not None
    assert wake < 0.1
    h.tick(wake)
    assert h.frames[1].tokens == (3,)


def waited_in_vain() -> Harness:
    """A repeats itself now, though not as a rule; the draft might have said so, but did not."""
    h = Harness(guessing=True, token_millis=30)
    h.keep(h.scheduler.draft_ready(0.01, h.now))
    h.submit(request(A, PROMPT, 100))
    for _ in range(30):
        next(iter(h.scheduler.sequences())).lookup.acceptance.judge(False)
    h.computed(h.frames[0], 3)
    wake = h.scheduler.next_wake()
    assert (len(h.frames), wake is None) == (1, False)
    h.tick(wake or 0.0)
    return h


def test_what_the_draft_does_not_say_the_sequence_itself_may() -> None:
    h = waited_in_vain()
    first, second = h.frames[1:3]
    assert (*first.tokens, *second.tokens) == (3, 4, 5, 6, 7, 8, 1, 2)[: 2 * len(first.tokens)]
    h.computed(first, *first.tokens[1:], second.tokens[0])
    assert len(h.frames) > 3, "it is not waited for again"
    assert h.frames[3].spans[0].attempt == 1


def test_a_draft_that_answers_after_all_is_waited_for_again() -> None:
    h = waited_in_vain()
    draft = h.scheduler._dispatch.speculator.draft
    assert not draft.brings(A)
    assert draft.wait == 0.0
    h.keep(h.scheduler.drafted(A, 11, History((*PROMPT, 3)).hash_at(11), (77,), h.now))
    assert h.scheduler.status()["speculation"]["late"] == 1, "4 is under way in that place"
    assert draft.brings(A)
    assert draft.wait > 0.0, "it is known now how long it takes"


def test_nobody_holds_while_the_pipeline_is_down() -> None:
    h = held_back()
    h.keep(h.scheduler.configure(None, h.now))
    assert h.scheduler.next_wake() is None


@pytest.mark.parametrize(("reach", "most"), [(0, 0), (1, 0), (3, 2)])
def test_no_more_than_the_caches_can_give_up_again(reach: int, most: int) -> None:
    h = repeating(reach=reach)
    assert sum(f.spans[0].length for f in h.frames[1:]) == 1 + most
    why = h.scheduler.status()["speculation"]["why"]
    assert (why is None) == (most > 0)
    assert repeating().scheduler.status()["speculation"]["why"] is None


def test_not_when_it_is_switched_off() -> None:
    h = Harness()
    h.submit(request(A, PROMPT, 100))
    h.computed(h.frames[-1], 3)
    assert h.frames[-1].tokens == (3,)
    assert len(h.frames) == 2


def test_a_sequence_that_never_agrees_stops_guessing() -> None:
    h = repeating()
    for token in range(1000, 1020):  # what followed the last time never follows
        oldest = next(m for m in h.scheduler._dispatch.window if m.spans)
        frame = next(f for f in h.frames if f.microbatch == oldest.id)
        h.computed(frame, *(token,) * frame.spans[0].outputs)
        h.scheduler._book.running[A].acceptance.judge(False)
    assert [f.spans[0].length for f in h.frames[-8:]] == [1] * 8
    assert h.scheduler.status()["speculation"]["sent"] < 8


def test_there_is_room_for_all_guesses_however_many_are_right() -> None:
    """As many may be under way as `headroom` says: whatever is right makes room for as many more,
    but for a few.
    """
    h = repeating(max_tokens=900)
    sequence = next(iter(h.scheduler.sequences()))
    for frame in islice(h.frames, 1, 30):  # grows while it is walked through
        (span,) = frame.spans
        place = span.position + span.length - span.outputs + 1
        h.computed(frame, *((place + n) % 8 + 1 for n in range(span.outputs)))
        assert sequence.guess_room(1000) > 40
    assert sequence.generated > 100


def test_many_stages_are_looked_at_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What that promises is what it would be, one stage after the other."""
    rng = random.Random(3)
    passes = [rng.uniform(0.004, 0.006) for _ in range(40)]
    course = Course.of(lambda n: [s + 0.0002 * n for s in passes], lambda n: 0.0003 * 41)
    tempi = [Tempo(*numbers) for numbers in product((0, 4), (1, 4), (2, 24))]
    rates = [course.rate(tempo, 0.8) for tempo in tempi]
    monkeypatch.setattr("daemon.scheduler.speculation.tempo._RUNS", 100)
    assert rates == pytest.approx([course.rate(tempo, 0.8) for tempo in tempi], rel=0.01)


@pytest.mark.parametrize("stages", [2, 3, 12])
def test_it_is_about_the_best_of_all(stages: int) -> None:
    """With many stages not all are looked at."""
    rng = random.Random(stages)
    for _ in range(12):
        passes = [rng.uniform(0.2, 3.0) for _ in range(stages)]
        slope, hop = rng.choice((0.01, 0.1, 0.3)), rng.choice((0.0, 0.1, 1.0)) * stages
        wait = rng.choice((0.0, 1.0))
        course = Course.of(
            lambda n, passes=passes, slope=slope: [one * (1 + slope * n) for one in passes],
            lambda n, hop=hop: hop,
            wait,
            wait,
        )
        acceptance = rng.uniform(0.2, 0.99)
        alone = choose(course, acceptance, 15, ahead=False).first
        chosen = course.rate(choose(course, acceptance, 15, ahead=True), acceptance)
        tempi = [
            Tempo(first, after, depth)
            for first in {0, 1, 2, alone // 2, alone}
            for after in (1, 2, 3, 4, 6, 8, 11, 15)
            for depth in {*range(2, 6), *range(6, stages + 2, 3)}
        ]
        assert chosen > 0.97 * max(course.rate(tempo, acceptance) for tempo in tempi)


def test_with_many_stages_few_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler does nothing else meanwhile."""
    rate, asked = Course.rate, []

    def counted(self: Course, *what: Any) -> float:
        asked.append(what)
        return rate(self, *what)

    monkeypatch.setattr(Course, "rate", counted)
    course = Course.of(lambda n: [1.0 + 0.04 * n] * 64, lambda n: 1.0)
    for acceptance in (0.3, 0.8, 0.95):
        asked.clear()
        assert choose(course, acceptance, 15, ahead=True).after
        assert len(asked) < 150, "of 600"
