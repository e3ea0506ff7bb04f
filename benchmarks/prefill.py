"""A prompt of 2,000 tokens: how much faster two stages read it than one core, beside what two cores
could do at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

from benchmarks.calm import Calm
from benchmarks.checkpoint import random_prompt
from benchmarks.lineup import Lineup, lineup
from benchmarks.options import OPTIMISED, Options, multipliers
from benchmarks.report import Check, Fact, at_least
from benchmarks.rounds import interleave
from benchmarks.worker import ask_all

PROMPT = 2000
# The head runs for the last token only, so here it weighs nothing and an even cut is the best one.
SPLIT = (8, 8)
ROUNDS = 7  # a round takes about a minute
STEPS = (2048, 512, 256)
TARGET = 1.7
OURS, CEILING = "shardbus, two stages", "two independent one-core mlx-lm"


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(Options(options.quick, options.rounds, (OPTIMISED,)))
    if not have:
        return [at_least("prefill_vs_one_core", None, TARGET)], [], notes
    calm = Calm(options.patience)
    length = 300 if options.quick else PROMPT
    with lineup(options.model(), have[0], SPLIT) as field:
        ids = field.prompts(1, length)[1][0]
        contestants = {
            f"mlx-lm, one core, steps of {step}": partial(_alone, field, ids, step)
            for step in STEPS
        }
        alone = list(contestants)
        contestants[CEILING] = partial(_ceiling, field, ids)
        contestants[OURS] = partial(_ours, field, length, count(1))
        contestants["ring, mlx-lm's way"] = partial(_ring, field, ids)
        measured = interleave(contestants, min(options.counted, ROUNDS), turn=calm.turn)
    checks = [at_least("prefill_vs_one_core", measured.ratio(OURS, *alone), TARGET)]
    facts = [
        Fact("two stages against one core, best/best", measured.best_ratio(OURS, *alone)),
        Fact("two processes against one core (the ceiling)", measured.ratio(CEILING, *alone)),
        Fact("two stages against the ceiling", measured.ratio(OURS, CEILING)),
        *[Fact(name, measured.median(name), "prompt tok/s") for name in measured.values],
    ]
    notes.append(
        f"All with {have[0].name}; split {SPLIT[0]} + {SPLIT[1]}; prompt of {length} tokens."
    )
    notes.append(
        "One core stands with the step size that is best for it; rates are to the first token."
    )
    return checks, facts, [*notes, calm.note()]


def _alone(field: Lineup, ids: list[int], step: int) -> float:
    answer = field.singles[0].ask(op="decode", prompt=ids, tokens=1, prefill_step=step)
    return len(ids) / float(answer["times"][0] - answer["start"])


def _ceiling(field: Lineup, ids: list[int]) -> float:
    """Both at once, until the slower one has its first token."""
    answers = ask_all(field.singles, op="decode", prompt=ids, tokens=1, prefill_step=min(STEPS))
    start = min(answer["start"] for answer in answers)
    return 2 * len(ids) / float(max(answer["times"][0] for answer in answers) - start)


def _ring(field: Lineup, ids: list[int]) -> float:
    answer = field.rings["mlx-lm"].decode([ids], 1)
    return len(ids) / float(answer["times"][0] - answer["start"])


def _ours(field: Lineup, length: int, seeds: Iterator[int]) -> float:
    """A new prompt each time: a cluster that remembers prompts must not gain by it."""
    text = random_prompt(field.folder, length, next(seeds))[0]
    stream = field.cluster.generate([text], 1)[0]
    return length / (stream.times[0] - stream.asked)
