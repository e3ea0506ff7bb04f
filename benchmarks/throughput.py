"""Two and four streams over two stages, against two independent one-core processes: all that the
machine has.
"""

from __future__ import annotations

from functools import partial

from benchmarks.calm import Calm
from benchmarks.lineup import SPLIT, Lineup, lineup
from benchmarks.options import Multiplier, Options, multipliers
from benchmarks.report import Check, Fact, at_least
from benchmarks.rounds import interleave, window_rate
from benchmarks.worker import ask_all

PROMPT = 16
CEILING = "two independent one-core mlx-lm"
TARGETS = {2: 0.93, 4: 0.95}


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
    notes.append(
        "BatchGenerator and the ring run 4 streams as one batch, for comparison: batching is "
        "another lever than overlapping stages."
    )
    return checks, facts, [*notes, calm.note()]


def _compare(
    options: Options, multiplier: Multiplier, calm: Calm
) -> tuple[list[Check], list[Fact]]:
    kind, tokens = multiplier.kind, options.tokens(multiplier.kind)
    with lineup(options.model(), multiplier) as field:
        texts, ids = field.prompts(max(TARGETS), PROMPT)
        batched = field.singles[0]
        measured = interleave(
            {
                CEILING: partial(_ceiling, field, ids, tokens),
                **{_ours(n): partial(_cluster, field, texts[:n], tokens) for n in TARGETS},
                "mlx-lm BatchGenerator of 4, one core": lambda: window_rate(
                    batched.ask(op="batch", prompts=ids, tokens=tokens)["streams"]
                ),
                "ring, mlx-lm's way, batch of 4": lambda: window_rate(
                    [field.rings["mlx-lm"].decode(ids, tokens)["times"]] * len(ids)
                ),
            },
            options.counted,
            turn=calm.turn,
        )
    checks = [
        at_least(f"{n}_streams_vs_two_cores.{kind}", measured.ratio(_ours(n), CEILING), target)
        for n, target in TARGETS.items()
    ]
    facts = [
        Fact(f"{n} streams, best/best, {kind}", measured.best_ratio(_ours(n), CEILING))
        for n in TARGETS
    ]
    facts += [Fact(f"{n}, {kind}, median", measured.median(n), "tok/s") for n in measured.values]
    return checks, facts


def _ours(streams: int) -> str:
    return f"shardbus, {streams} streams"


def _ceiling(field: Lineup, ids: list[list[int]], tokens: int) -> float:
    answers = ask_all(field.singles, op="decode", prompt=ids[0], tokens=tokens)
    return window_rate([answer["times"] for answer in answers])


def _cluster(field: Lineup, texts: list[str], tokens: int) -> float:
    return window_rate([stream.times for stream in field.cluster.generate(texts, tokens)])
