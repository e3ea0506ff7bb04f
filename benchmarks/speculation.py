"""Guesses on real stages of one core each: an oracle's, those of a draft model, and those from what
a text repeats; against mlx-lm on one core, its own speculation, and its tensor parallelism. And a
prompt over links of a given speed.
"""

from __future__ import annotations

import time

from benchmarks.calm import Calm
from benchmarks.guided import lookup, oracle, pair
from benchmarks.guided.common import Findings
from benchmarks.options import OPTIMISED, Options, multipliers
from benchmarks.report import Check, Fact, at_least, at_most
from benchmarks.shaped import prefill


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    began = time.monotonic()
    have, notes = multipliers(Options(options.quick, options.rounds, (OPTIMISED,)))
    if not have:
        return [at_least("oracle_0.8_vs_one_core", None, 1.9)], [], notes
    found = Findings(options, have[0], Calm(options.patience), notes=notes)
    for part in (oracle, pair, lookup, prefill):
        part.measure(found)
    checks = [*found.checks, at_most("tokens_not_those_of_mlx_lm", len(found.different), 0)]
    facts = [
        *found.facts,
        Fact("tokens compared with mlx-lm's", found.compared),
        Fact("ties among them", found.ties),
        Fact("the whole benchmark", time.monotonic() - began, "s"),
    ]
    notes = [
        f"Real, not paced: all with {have[0].name}, one core a stage.",
        "The embedded model has one KV head, which tensor parallelism cannot cut in two.",
        *found.notes,
        *found.different,
    ]
    return checks, facts, [*notes, found.calm.note()]
