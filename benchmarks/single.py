"""One stream over two stages, against mlx-lm on one core and against the ring pipelines with the
same split.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.calm import Calm
from benchmarks.lineup import SPLIT, lineup
from benchmarks.options import Multiplier, Options, multipliers
from benchmarks.report import Check, Fact, at_least
from benchmarks.rounds import interleave, rate

PROMPT = 16
OURS, ALONE = "shardbus", "mlx-lm, one core"


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(options)
    calm = Calm(options.patience)
    checks: list[Check] = []
    facts: list[Fact] = []
    for multiplier in have:
        more_checks, more_facts = _compare(options, multiplier, calm)
        checks += more_checks
        facts += more_facts
        notes.append(f"{multiplier.kind}: every contestant multiplies with {multiplier.name}.")
    notes.append(f"Split {SPLIT[0]} + {SPLIT[1]} layers for all two-stage contestants.")
    return checks, facts, [*notes, calm.note()]


def _compare(
    options: Options, multiplier: Multiplier, calm: Calm
) -> tuple[list[Check], list[Fact]]:
    tokens = options.tokens(multiplier.kind)
    with lineup(options.model(), multiplier) as field:
        (text,), (ids,) = field.prompts(1, PROMPT)
        reference = field.singles[0].ask(op="decode", prompt=ids, tokens=tokens)["ids"]
        equal: dict[str, list[bool]] = {}

        def checked(name: str, measure: Callable[[], tuple[list[float], list[int]]]) -> float:
            times, got = measure()
            equal.setdefault(name, []).append(got == reference)
            return rate(times)

        def alone() -> tuple[list[float], list[int]]:
            answer = field.singles[0].ask(op="decode", prompt=ids, tokens=tokens)
            return answer["times"], answer["ids"]

        def ring(style: str) -> tuple[list[float], list[int]]:
            answer = field.rings[style].decode([ids], tokens)
            return answer["times"], answer["ids"]

        def ours() -> tuple[list[float], list[int]]:
            stream = field.cluster.generate([text], tokens)[0]
            return stream.times, stream.ids

        rings = {f"ring, {style}'s way": style for style in field.rings}
        measured = interleave(
            {
                ALONE: partial(checked, ALONE, alone),
                **{name: partial(checked, name, partial(ring, s)) for name, s in rings.items()},
                OURS: partial(checked, OURS, ours),
            },
            options.counted,
            turn=calm.turn,
        )
    kind = multiplier.kind
    checks = [
        at_least(f"one_stream_vs_one_core.{kind}", measured.ratio(OURS, ALONE), 0.95),
        at_least(f"one_stream_vs_best_ring.{kind}", measured.ratio(OURS, *rings), 0.97),
    ]
    facts = [
        Fact(f"one stream against one core, best/best, {kind}", measured.best_ratio(OURS, ALONE)),
        Fact(f"one stream against rings, best/best, {kind}", measured.best_ratio(OURS, *rings)),
        *[Fact(f"{n}, {kind}, median", measured.median(n), "tok/s") for n in measured.values],
        *[Fact(f"{n}, {kind}, best", measured.best(n), "tok/s") for n in measured.values],
        *[
            Fact(f"{name}, {kind}: runs with mlx-lm's tokens", sum(runs) / len(runs))
            for name, runs in equal.items()
        ],
    ]
    return checks, facts
