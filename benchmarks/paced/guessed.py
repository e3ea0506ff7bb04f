"""The ladder's rows with guesses: one stream, on two nodes and on three, one frame at a time and
several, for each acceptance.

The oracle guesses in a draft process of its own, in the seed's time for a token, or at once, as
n-grams are.
"""

from __future__ import annotations

from benchmarks.limit import AFTER, Draft, Plan, best_decode
from benchmarks.paced.field import PROMPTS, SLOW, THREE, TWO, Field, Row
from benchmarks.paced.oracle import Script, trace
from benchmarks.paced.pace import MS, Pace
from benchmarks.report import at_least
from benchmarks.requests import Stream
from benchmarks.rounds import rate

DRAFTED, AT_ONCE = Draft(0.0, 3 * MS), Draft()
ASKED = 0.8  # the acceptance of which the seed's hopes are
LENGTHS = {0.8: 160, 0.0: 300, 0.6: 160, 0.95: 300}  # tokens of an answer, by acceptance
WHERE_FEW_ARE_ENOUGH = 60  # the acceptance 0.0 on further nodes
OVERLAPPED, SYNCHRONOUS = 0.93, 0.95  # of the limit
SLOW_THREE = 6.0  # where three stages, a draft and a coordinator work at once, on fewer cores
NO_WORSE = 0.97  # than the synchronous rate, or than without guesses


def rates(
    field: Field,
    pace: Pace,
    lengths: dict[float, int],
    ahead: bool,
    draft: Draft = DRAFTED,
    hoped: str = "",
    slow: float = SLOW,
) -> dict[float, Row]:
    """By acceptance: one stream after the other, each with a prompt of its own."""
    answers = [field.answer(text, n) for text, n in zip(PROMPTS, lengths.values(), strict=False)]
    scripts = [
        Script(answer.prompt, answer.tokens, trace(acceptance, len(answer.tokens)))
        for answer, acceptance in zip(answers, lengths, strict=True)
    ]
    found: list[Stream] = []
    with field.cluster(pace, scripts, ahead, draft.each, slow) as paced:
        for text, answer in zip(PROMPTS, answers, strict=False):
            found += paced.cluster.generate([text], len(answer.tokens))
    rows = {}
    for stream, answer, script, acceptance in zip(found, answers, scripts, lengths, strict=True):
        field.reference.compare(stream, answer)
        tokens = len(answer.tokens)
        limit, plan = best_decode(pace, script.right, tokens, draft, AFTER if ahead else ())
        row = Row(
            _name(pace, acceptance, ahead, draft),
            hoped,
            slow * rate(stream.times),
            limit,
            how=_said(plan) + (f", slowed {slow:g} times" if slow != SLOW else ""),
        )
        field.add(row)
        rows[acceptance] = row
    return rows


def two_nodes(field: Field) -> None:
    waiting = rates(field, TWO, _guessing(LENGTHS), ahead=False, hoped="22-25")
    share = waiting[ASKED].reached
    field.checks.append(at_least("paced.synchronous_2_nodes_vs_limit", share, SYNCHRONOUS))
    ahead = rates(field, TWO, LENGTHS, ahead=True, hoped="~30")
    _compare(field, "2_nodes", ahead, waiting)
    without = ahead[0.0].ours * TWO.round_seconds(1)
    field.checks.append(at_least("paced.nothing_right_vs_no_guesses", without, NO_WORSE))
    rates(field, TWO, {ASKED: LENGTHS[ASKED]}, ahead=True, draft=AT_ONCE, hoped="~30")


def three_nodes(field: Field) -> None:
    waiting = rates(field, THREE, _guessing(LENGTHS), ahead=False)
    lengths = {**LENGTHS, 0.0: WHERE_FEW_ARE_ENOUGH}
    ahead = rates(field, THREE, lengths, ahead=True, hoped="25-28", slow=SLOW_THREE)
    _compare(field, "3_nodes", ahead, waiting)


def _compare(field: Field, nodes: str, ahead: dict[float, Row], waiting: dict[float, Row]) -> None:
    """Frames that overlap are no worse than one at a time, and near the limit."""
    for acceptance, row in ahead.items():
        name = f"paced.ahead_{nodes}_at_{acceptance:g}"
        field.checks.append(at_least(f"{name}_vs_limit", row.reached, OVERLAPPED))
        if acceptance in waiting:
            ratio = row.ours / waiting[acceptance].ours
            field.checks.append(at_least(f"{name}_vs_synchronous", ratio, NO_WORSE))


def _guessing(lengths: dict[float, int]) -> dict[float, int]:
    """Those acceptances at which anything is guessed."""
    return {acceptance: tokens for acceptance, tokens in lengths.items() if acceptance}


def _name(pace: Pace, acceptance: float, ahead: bool, draft: Draft) -> str:
    nodes = {2: "", 3: "third node, "}[len(pace.passes)]
    how = "overlapped" if ahead else "one frame at a time"
    whose = f"{draft.each / MS:g} ms a guess" if draft.each else "at once, as n-grams"
    return f"{nodes}speculation {how}, an oracle right {acceptance:.0%} of the time, {whose}"


def _said(plan: Plan) -> str:
    ahead = f", then {plan.after} a frame, {plan.depth} frames" if plan.after else ""
    return f"{plan.first} guesses{ahead}"
