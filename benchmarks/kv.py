"""Quantised KV: what it saves, what it costs in perplexity on text that the model never saw, and in
speed.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.calm import Calm
from benchmarks.checkpoint import random_prompt
from benchmarks.options import Multiplier, Options, multipliers
from benchmarks.report import Check, Fact, at_most
from benchmarks.rounds import interleave
from benchmarks.worker import Worker, pin_self, serve
from daemon.kv_bits import EXACT, KV_BITS

Handler = Callable[..., dict[str, Any]]

FEWER = tuple(bits for bits in KV_BITS if bits != EXACT)
SHARES = {("float16", 8): 0.55, ("float16", 4): 0.32, ("float32", 8): 0.30, ("float32", 4): 0.17}
PERPLEXITY_PERCENT = 0.5  # of 8 bits; 4 bits are reported
HEADS, HEAD_SIZE = 4, 64
WINDOW, WINDOWS = 1024, 32  # tokens of held-out text, each read from an empty cache
SPAN = 64
CONTEXT, TOKENS, ROUNDS = 2000, 48, 5


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(options)
    multiplier = have[0]
    calm = Calm(options.patience)
    with Worker(__name__, core=0, environment=multiplier.environment) as worker:
        checks, facts = _bytes(worker)
        more_checks, more_facts = _perplexity(worker, 2 if options.quick else WINDOWS)
        facts += more_facts + _speed(worker, options, calm)
    notes += _notes(multiplier)
    return checks + more_checks, facts, [*notes, calm.note()]


def _bytes(worker: Worker) -> tuple[list[Check], list[Fact]]:
    checks: list[Check] = []
    facts: list[Fact] = []
    for dtype in ("float16", "float32"):
        shape = {"dtype": dtype, "heads": HEADS, "head_size": HEAD_SIZE}
        size = {bits: worker.ask(op="size", bits=bits, **shape)["bytes"] for bits in KV_BITS}
        for bits in FEWER:
            share, most = size[bits] / size[EXACT], SHARES[dtype, bits]
            checks.append(at_most(f"bytes_{bits}bit_vs_{dtype}", share, most))
        facts += [Fact(f"{dtype}, {_name(bits)}", size[bits], "bytes") for bits in KV_BITS]
    return checks, facts


def _perplexity(worker: Worker, count: int) -> tuple[list[Check], list[Fact]]:
    """Window by window, with one type against the other: text differs more than they do."""
    text = {"count": count, "window": WINDOW, "span": SPAN}
    nats = {bits: worker.ask(op="score", bits=bits, **text)["nats"] for bits in KV_BITS}
    facts = [Fact(f"perplexity, {_name(EXACT)}", math.exp(statistics.fmean(nats[EXACT])))]
    changes = {}
    for bits in FEWER:
        apart = [few - exact for few, exact in zip(nats[bits], nats[EXACT], strict=True)]
        changes[bits] = 100 * math.expm1(statistics.fmean(apart))
        error = 100 * statistics.stdev(apart) / math.sqrt(len(apart))
        facts.append(Fact(f"perplexity change, {_name(bits)}", changes[bits], "%"))
        facts.append(Fact(f"standard error of it, {_name(bits)}", error, "%"))
    return [at_most("perplexity_change_percent.8bit", changes[8], PERPLEXITY_PERCENT)], facts


def _speed(worker: Worker, options: Options, calm: Calm) -> list[Fact]:
    folder = options.model().folder()
    prompt = random_prompt(folder, 200 if options.quick else CONTEXT, 0)[1]
    sizes = worker.ask(op="fill", folder=str(folder), prompt=prompt)["bytes"]
    tokens = 8 if options.quick else TOKENS
    turns = {_name(bits): partial(_rate, worker, bits, tokens) for bits in KV_BITS}
    measured = interleave(turns, min(options.counted, ROUNDS), turn=calm.turn)
    facts = []
    for name, held in zip(turns, sizes, strict=True):
        facts.append(Fact(f"one stage, {name}", measured.median(name), "tok/s"))
        facts.append(Fact(f"one stage, {name}, held per token", held / len(prompt), "bytes"))
    exact = _name(EXACT)
    for name in map(_name, FEWER):
        facts.append(Fact(f"speed, {name} against exact", measured.ratio(name, exact)))
    return facts


def _rate(worker: Worker, bits: int, tokens: int) -> float:
    return tokens / float(worker.ask(op="decode", bits=bits, tokens=tokens)["seconds"])


def _name(bits: int) -> str:
    return f"{bits}-bit KV" if bits else "exact KV"


def _notes(multiplier: Multiplier) -> list[str]:
    return [
        f"Bytes of one token in one layer with {HEADS} KV heads of {HEAD_SIZE}, scales included; "
        "what a model with these types takes.",
        f"Perplexity: the embedded target model on the library modules its training left out, "
        f"{WINDOWS} windows of {WINDOW} tokens, in steps of {SPAN}, through the engine's caches.",
        f"Speed: one stage of one core, fp32, {CONTEXT} tokens of context, with {multiplier.name}; "
        "bytes per token with the room to grow that the caches had.",
    ]


def main() -> None:
    """The process that measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    pin_self(parser.parse_args().core)
    from benchmarks.kv_stage import Decoding, score, size

    decoding = Decoding()
    handlers: dict[str, Handler] = {"size": size, "score": score}
    serve({**handlers, "fill": decoding.fill, "decode": decoding.decode})


if __name__ == "__main__":
    main()
