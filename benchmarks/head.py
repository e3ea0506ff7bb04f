"""Norm, head and choice of tokens as one compiled step, against the same in separate steps, and
against reading the head's weights, which nothing can avoid.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.calm import Calm
from benchmarks.models import RandomLlama
from benchmarks.options import Options, multipliers
from benchmarks.report import Check, Fact, at_most
from benchmarks.rounds import interleave
from benchmarks.worker import Worker, pin_self, serve

MODEL = RandomLlama(hidden=2048, layers=1, ffn=512, vocabulary=32768, context=512, seed=3)
ROWS = (1, 8)
FUSED, PLAIN, SEPARATE, LIBRARY = "fused", "not compiled", "in separate steps", "as mlx-lm does it"
PRODUCT = "the head's product alone"
WAYS = (FUSED, PLAIN, SEPARATE, LIBRARY, PRODUCT)
REPEATS = 20


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(options)
    multiplier = have[0]
    calm = Calm(options.patience)
    checks: list[Check] = []
    facts: list[Fact] = []
    with Worker(__name__, core=0, environment=multiplier.environment) as worker:
        worker.ask(op="load", folder=str(MODEL.folder()), rows=list(ROWS))
        for rows in ROWS:
            for kind in ("greedy", "sampled"):
                turns = {way: partial(_rate, worker, rows, kind, way) for way in WAYS}
                measured = interleave(turns, options.counted, turn=calm.turn)
                name = f"{kind}.{rows}"
                taken = measured.ratio(LIBRARY, FUSED)
                checks.append(at_most(f"fused_against_mlx_lm.{name}", taken, 1.0))
                facts.append(
                    Fact(f"fused against {SEPARATE}, {name}", measured.ratio(SEPARATE, FUSED))
                )
                beside = 1 - measured.ratio(FUSED, PRODUCT)
                facts.append(Fact(f"beside the product, fused, {name}", 100 * beside, "%"))
                facts += [Fact(f"{way}, {name}", 1e6 / measured.median(way), "us") for way in WAYS]
    notes += [
        f"A head of {MODEL.vocabulary:,} x {MODEL.hidden:,} fp32 values on one core, with "
        f"{multiplier.name}; sampled at temperature 0.8. `{PRODUCT}` only reads and multiplies.",
        "What the fused step takes beside the product is all that a kernel of our own could save "
        "here.",
    ]
    return checks, facts, [*notes, calm.note()]


def _rate(worker: Worker, rows: int, kind: str, way: str) -> float:
    """Steps per second."""
    asked = {"rows": rows, "sampled": kind == "sampled", "way": way}
    return REPEATS / float(worker.ask(op="time", repeats=REPEATS, **asked)["seconds"])


def main() -> None:
    """The process that measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    pin_self(parser.parse_args().core)
    from benchmarks.head_stage import HeadStage

    stage = HeadStage()
    serve({"load": stage.load, "time": stage.time})


if __name__ == "__main__":
    main()
