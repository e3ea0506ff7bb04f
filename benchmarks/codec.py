"""Wire codecs: bytes, the time of encoding and decoding, and what a model makes of held-out text
when its hidden states travel so.
"""

from __future__ import annotations

import argparse
import math
import statistics
from functools import partial
from typing import Any

from benchmarks.calm import Calm
from benchmarks.options import Options, multipliers
from benchmarks.report import Check, Fact, at_most
from benchmarks.rounds import interleave
from benchmarks.worker import Worker, pin_self, serve
from transports.codecs.layout import Codec, encoded_bytes
from transports.frame import DType

CODED = (Codec.FP8, Codec.INT8)
BYTES = {Codec.FP8: 0.26, Codec.INT8: 0.27}  # of float32's
PERPLEXITY_PERCENT = {Codec.FP8: 0.5, Codec.INT8: 0.1}  # over one hop
ROW_US = {Codec.FP8: 150.0, Codec.INT8: 300.0}
WIDTH, CHUNK = 2048, 512
HOPS = (1, 2, 4)
PLANTED = 2  # channels
FACTORS = {"plain": 1.0, "x300": 300.0, "x20,000": 20_000.0}
TOO_MANY = 12  # massive channels, more than stand apart
WINDOW, WINDOWS = 1024, 32  # tokens of held-out text, each read from an empty cache


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    have, notes = multipliers(options)
    calm = Calm(options.patience)
    with Worker(__name__, core=0, environment=have[0].environment) as worker:
        checks, facts = _bytes()
        for more_checks, more_facts in (
            _row(worker, options, calm),
            _quality(worker, 2 if options.quick else WINDOWS),
        ):
            checks, facts = checks + more_checks, facts + more_facts
        facts += _chunk(worker, options, calm) + _errors(worker)
    return checks, facts, [*notes, *_notes(), calm.note()]


def _bytes() -> tuple[list[Check], list[Fact]]:
    size = {codec: encoded_bytes(codec, WIDTH, 1, DType.FLOAT32) for codec in Codec}
    checks = [at_most(f"bytes_vs_float32.{c}", size[c] / size[Codec.RAW], BYTES[c]) for c in CODED]
    return checks, [Fact(f"one row, {codec}", size[codec], "bytes") for codec in Codec]


def _row(worker: Worker, options: Options, calm: Calm) -> tuple[list[Check], list[Fact]]:
    """One row, as in decoding. Raw's is a view out and a copy in."""
    turns = {
        _name(codec, path, dtype): partial(_us, worker, codec, path, dtype, 1)
        for codec in Codec
        for path in (("numpy", "mlx") if codec in CODED else ("numpy",))
        for dtype in (DType.FLOAT32, DType.BFLOAT16)
    }
    measured = interleave(turns, options.counted, turn=calm.turn)
    facts = [Fact(f"one row, {name}", measured.median(name), "µs") for name in turns]
    checks = []
    for codec in CODED:
        chosen = measured.median(_name(codec, "numpy", DType.FLOAT32))
        checks.append(at_most(f"one_row_us.{codec}", chosen, ROW_US[codec]))
    return checks, facts


def _name(codec: Codec, path: str, dtype: DType) -> str:
    how = codec if codec is Codec.RAW else f"{codec}, {path}"
    return f"{how}, {dtype.name.lower()}"


def _us(worker: Worker, codec: Codec, path: str, dtype: DType, rows: int) -> float:
    times = max(1, 500 // rows)
    asked = {"codec": codec, "path": path, "dtype": dtype.name, "rows": rows, "times": times}
    return 1e6 * float(worker.ask(op="seconds", width=WIDTH, **asked)["seconds"])


def _chunk(worker: Worker, options: Options, calm: Calm) -> list[Fact]:
    """A chunk of a prompt against the copy of its bytes, which nothing can beat."""
    nbytes = CHUNK * WIDTH * DType.FLOAT32.itemsize
    turns = {
        f"{codec}, {path}": partial(_gigabytes, worker, codec, path, nbytes)
        for codec in CODED
        for path in ("numpy", "mlx")
    }

    def copied() -> float:
        return nbytes / 1e9 / float(worker.ask(op="copy", nbytes=nbytes, times=20)["seconds"])

    measured = interleave({**turns, "copied": copied}, options.counted, turn=calm.turn)
    facts = [Fact(f"{CHUNK} rows, copied", measured.median("copied"), "GB/s")]
    for name in turns:
        facts.append(Fact(f"{CHUNK} rows, {name}", measured.median(name), "GB/s"))
        facts.append(Fact(f"{CHUNK} rows, {name}, of a copy", measured.ratio(name, "copied")))
    return facts


def _gigabytes(worker: Worker, codec: Codec, path: str, nbytes: int) -> float:
    return nbytes / 1e3 / _us(worker, codec, path, DType.FLOAT32, CHUNK)


def _quality(worker: Worker, count: int) -> tuple[list[Check], list[Fact]]:
    """Window by window, coded against raw: text differs more than they do."""
    ask = partial(worker.ask, op="score", count=count, window=WINDOW)
    raw = ask(codec=Codec.RAW, hops=1, factor=1.0, planted=0)["nats"]
    checks: list[Check] = []
    facts = [Fact("perplexity, raw", math.exp(statistics.fmean(raw)))]
    runs = [(hops, name, factor, PLANTED) for hops in HOPS for name, factor in FACTORS.items()]
    runs.append((1, f"x20,000 in {TOO_MANY} channels", 20_000.0, TOO_MANY))
    for codec in CODED:
        for hops, name, factor, planted in runs:
            found = ask(codec=codec, hops=hops, factor=factor, planted=planted)
            change, error = _change(found["nats"], raw)
            about = f"{codec}, {hops} hop{'s' if hops > 1 else ''}, {name}"
            facts.append(Fact(f"perplexity change, {about}", change, "%"))
            facts.append(Fact(f"standard error of it, {about}", error, "%"))
            facts.append(Fact(f"first choice as raw's, {about}", 100 * found["agreement"], "%"))
            if hops == 1 and planted == PLANTED:
                check = f"perplexity_change_percent.{codec}.{name.replace(',', '')}"
                checks.append(at_most(check, abs(change), PERPLEXITY_PERCENT[codec]))
    return checks, facts


def _change(nats: list[float], raw: list[float]) -> tuple[float, float]:
    """Of the perplexity, in per cent, and its standard error."""
    apart = [coded - exact for coded, exact in zip(nats, raw, strict=True)]
    error = statistics.stdev(apart) / math.sqrt(len(apart))
    return 100 * math.expm1(statistics.fmean(apart)), 100 * error


def _errors(worker: Worker) -> list[Fact]:
    """At the width of a real model, of which a planted channel is a smaller part."""
    facts = []
    cases: list[tuple[str, dict[str, Any]]] = [
        (name, {"factor": factor, "planted": PLANTED}) for name, factor in FACTORS.items()
    ]
    cases.append((f"x20,000 in {TOO_MANY} channels", {"factor": 20_000.0, "planted": TOO_MANY}))
    for codec in CODED:
        for name, planted in cases:
            error = worker.ask(op="lost", codec=codec, width=WIDTH, **planted)["lost"]
            facts.append(Fact(f"error of the other channels, {codec}, {name}", 100 * error, "%"))
    return facts


def _notes() -> list[str]:
    return [
        f"Rows of {WIDTH} values; times are of encoding and decoding together, on one core, "
        "through daemon.stage.codecs. On a CPU NumPy is what a stage uses.",
        f"Perplexity: the embedded target model (8 layers, 192 channels, float32) in 2, 3 and 5 "
        f"stages, on {WINDOWS} windows of {WINDOW} tokens that its training left out.",
        f"Massive channels are planted around the codec: {PLANTED} channels are multiplied before "
        "encoding and divided after decoding, which leaves the model as it was.",
        f"{TOO_MANY} massive channels are more than the 8 that stand apart: what lies beyond the "
        "design, and no target.",
    ]


def main() -> None:
    """The process that measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    pin_self(parser.parse_args().core)
    from benchmarks.codec_stage import Scoring, copy_seconds, lost, seconds

    serve({"seconds": seconds, "copy": copy_seconds, "lost": lost, "score": Scoring().score})


if __name__ == "__main__":
    main()
