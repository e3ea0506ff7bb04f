"""Eight streams over two stages, against mlx-lm's own batches on one core and on two; and how even
the running streams go while others come, go, or read a long prompt.
"""

from __future__ import annotations

from functools import partial

from benchmarks.calm import Calm
from benchmarks.evenness import measure as measure_evenness
from benchmarks.lineup import SPLIT, Lineup, lineup
from benchmarks.options import OPTIMISED, Multiplier, Options, multipliers
from benchmarks.report import Check, Fact, at_least
from benchmarks.rounds import Rounds, interleave, window_rate
from benchmarks.worker import ask_all

PROMPT = 16
STREAMS = 8
LONGER = 2  # prompts are read bit by bit beside those that decode: it takes a while until all do
OURS, ONE = f"shardbus, {STREAMS} streams", "shardbus, 1 stream"
HALF, WHOLE = "mlx-lm BatchGenerator of 4, one core", "mlx-lm BatchGenerator of 8, one core"
CEILING = "two independent mlx-lm BatchGenerators of 4"
# Of 8 requests against mlx-lm's batch of 8. The reference BLAS gains little by batches, so there
# two stages are worth more.
VERSUS_WHOLE = {OPTIMISED: 1.05}
STOCK_VERSUS_WHOLE = 1.6


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(options)
    calm = Calm(options.patience)
    checks: list[Check] = []
    facts: list[Fact] = []
    for multiplier in have:
        kind = multiplier.kind
        with lineup(options.model(), multiplier) as field:
            measured = _measure(field, options, multiplier, calm)
            checks += _checks(measured, kind)
            facts += _facts(measured, kind)
            if kind == OPTIMISED:
                more_checks, more_facts = measure_evenness(field.cluster, field.folder, options)
                checks += more_checks
                facts += more_facts
        notes.append(f"{kind}: every contestant multiplies with {multiplier.name}.")
    notes.append(f"Split {SPLIT[0]} + {SPLIT[1]} layers; prompts of {PROMPT} tokens.")
    notes.append(
        "Our stages run as shardd starts them, with glibc keeping freed buffers "
        "(daemon/supervisor/node.py); mlx-lm runs as it comes."
    )
    notes.append(
        "Ceiling of 8 requests against mlx-lm's batch of 8: two cores with a batch of 4 each, at "
        "mlx-lm's own rates."
    )
    return checks, facts, [*notes, calm.note()]


def _measure(field: Lineup, options: Options, multiplier: Multiplier, calm: Calm) -> Rounds:
    tokens = options.tokens(multiplier.kind) * LONGER
    texts, ids = field.prompts(STREAMS, PROMPT)
    half = STREAMS // 2
    return interleave(
        {
            CEILING: lambda: _batches(ask_all(field.singles, **_batch(ids[:half], tokens))),
            HALF: lambda: _batches([field.singles[0].ask(**_batch(ids[:half], tokens))]),
            WHOLE: lambda: _batches([field.singles[0].ask(**_batch(ids, tokens))]),
            OURS: partial(_cluster, field, texts, tokens),
            ONE: partial(_cluster, field, texts[:1], tokens),
        },
        options.counted,
        turn=calm.turn,
    )


def _checks(measured: Rounds, kind: str) -> list[Check]:
    checks = [
        at_least(
            f"8_requests_vs_batch_of_8.{kind}",
            measured.ratio(OURS, WHOLE),
            VERSUS_WHOLE.get(kind, STOCK_VERSUS_WHOLE),
        )
    ]
    if kind == OPTIMISED:
        checks += [
            at_least(f"8_streams_vs_two_batches_of_4.{kind}", measured.ratio(OURS, CEILING), 0.9),
            at_least(f"8_streams_vs_one_stream.{kind}", measured.ratio(OURS, ONE), 5.0),
            at_least(f"8_requests_vs_batch_of_4.{kind}", measured.ratio(OURS, HALF), 1.7),
        ]
    return checks


def _facts(measured: Rounds, kind: str) -> list[Fact]:
    ceiling = 2 * measured.median(HALF) / measured.median(WHOLE)
    best = [
        Fact(f"8 streams against {other}, best/best, {kind}", measured.best_ratio(OURS, other))
        for other in (WHOLE, CEILING, ONE)
    ]
    rates = [Fact(f"{n}, {kind}, median", measured.median(n), "tok/s") for n in measured.values]
    return [Fact(f"ceiling of 8 requests against a batch of 8, {kind}", ceiling), *best, *rates]


def _batch(prompts: list[list[int]], tokens: int) -> dict[str, object]:
    return {"op": "batch", "prompts": prompts, "tokens": tokens}


def _batches(answers: list[dict[str, list[list[float]]]]) -> float:
    return window_rate([times for answer in answers for times in answer["streams"]])


def _cluster(field: Lineup, texts: list[str], tokens: int) -> float:
    return window_rate([stream.times for stream in field.cluster.generate(texts, tokens)])
