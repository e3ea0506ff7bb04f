"""`python -m benchmarks NAME [--json]`, `python -m benchmarks list`, and `all`, which is what `make
bench` runs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks.machine import busy_share, describe, unpinned_afterwards
from benchmarks.models import STATE
from benchmarks.options import OPTIMISED, STOCK, Options
from benchmarks.report import Check, Fact, Result, Table, load_saved, render, save, write_document
from benchmarks.worker import ROOT

Found = tuple[list[Check], list[Fact], list[str]]
Run = Callable[[Options], Found | tuple[list[Check], list[Fact], list[str], Table]]

# Name, module:function, and what it answers. Later issues add theirs here.
BENCHMARKS = {
    "single": ("benchmarks.single:run", "one stream, against one core and ring pipelines"),
    "throughput": ("benchmarks.throughput:run", "2 and 4 streams, against two processes"),
    "batching": ("benchmarks.batching:run", "8 streams, against mlx-lm's batches, and evenness"),
    "prefix": ("benchmarks.prefix:run", "a second turn from memory and disk, against a cold one"),
    "prefill": ("benchmarks.prefill:run", "a prompt of 2,000 tokens, against one core"),
    "recovery": ("benchmarks.recovery:run", "a stage that is killed, refilled or not"),
    "hop": ("benchmarks.parts:run_hop", "one frame from a process to another"),
    "rdma": ("benchmarks.rdma.run:run", "the way through rdma processes, on loopback"),
    "coordinator": ("benchmarks.parts:run_coordinator", "its own work per microbatch"),
    "scale": ("benchmarks.scale.run:run", "its steps at 64 nodes and 1,000 sequences, simulated"),
    "placement": ("benchmarks.placement.run:run", "plans on paced nodes, against what they give"),
    "kv": ("benchmarks.kv:run", "quantised KV: bytes, perplexity, speed"),
    "head": ("benchmarks.head:run", "norm, head and choice as one step, against separate steps"),
    "codec": ("benchmarks.codec:run", "wire codecs: bytes, time, perplexity over hops"),
    "memory": ("benchmarks.memory:run", "a stage's highest size, and what loading opens"),
    "startup": ("benchmarks.startup:run", "help, status, and the demo's first token"),
    "speculation": ("benchmarks.speculation:run", "guesses, against mlx-lm's own and none"),
    "ladder": ("benchmarks.ladder:run", "the seed's own cluster, paced, against its hopes"),
    "rebalance": ("benchmarks.rebalance:run", "layers that move while four streams are read"),
    "parity": ("benchmarks.parity:run", "tokens of every split against one process"),
}
SAVED = STATE / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    arguments = _parser().parse_args()
    # A benchmark that is told to end takes its clusters and workers with it.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    if arguments.name == "list":
        for name, (_, what) in BENCHMARKS.items():
            print(f"{name:12} {what}")
        return 0
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another benchmark runs in this checkout: wait for it", file=sys.stderr)
            return 2
        return _measure(arguments)


def _measure(arguments: argparse.Namespace) -> int:
    options = Options(arguments.quick, arguments.rounds, tuple(arguments.blas))
    names = list(BENCHMARKS) if arguments.name == "all" else [arguments.name]
    document = arguments.write
    if document is None and arguments.name == "all" and not options.quick:
        document = DOCUMENT
    results = []
    for name in names:
        print(f"benchmark {name}: {BENCHMARKS[name][1]}", file=sys.stderr, flush=True)
        results.append(result := _run(name, options))
        if not options.quick:
            save(result, SAVED)
        if not arguments.json:
            print(f"## {name}\n\n{render(result)}", flush=True)
        if document is not None:
            write_document(document, load_saved(SAVED, BENCHMARKS))
    if arguments.json:
        found = [result.to_json() for result in results]
        print(json.dumps(found if arguments.name == "all" else found[0]))
    return 0 if all(result.ok for result in results) else 1


def _run(name: str, options: Options) -> Result:
    module, function = BENCHMARKS[name][0].split(":")
    run: Run = getattr(import_module(module), function)
    busy = busy_share()
    with unpinned_afterwards():
        found = run(options)
    checks, facts, notes = found[:3]
    table = found[3] if len(found) == 4 else None
    machine = {**describe(), "busy_before": f"{busy:.0%}"}
    if options.quick:
        notes = [*notes, "A quick run: it shows that everything works, its numbers mean nothing."]
    return Result(name, machine, _command(name, options), checks, facts, notes, table)


def _command(name: str, options: Options) -> str:
    """What repeats this run."""
    words = ["python -m benchmarks", name]
    if options.quick:
        words.append("--quick")
    elif options.rounds != Options().rounds:
        words.append(f"--rounds {options.rounds}")
    if options.blas != Options().blas:
        words.append(f"--blas {' '.join(options.blas)}")
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["list", "all", *BENCHMARKS])
    parser.add_argument("--json", action="store_true", help="print one object instead of tables")
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--rounds", type=int, default=Options().rounds, help="interleaved rounds")
    parser.add_argument(
        "--blas", nargs="+", choices=[OPTIMISED, STOCK], default=list(Options().blas)
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="write the last results there; `all` writes docs/benchmarks.md",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
