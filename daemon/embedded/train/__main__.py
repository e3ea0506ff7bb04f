"""Trains both models: `python -m daemon.embedded.train --out DIR --seed 0`.

A run that was interrupted goes on from its last checkpoint when started again.
"""

import argparse
import json
import os
import platform
from pathlib import Path

import torch

from daemon.embedded.train.corpus import gather
from daemon.embedded.train.export import export
from daemon.embedded.train.loop import train
from daemon.embedded.train.model import count
from daemon.embedded.train.plan import Plan
from daemon.embedded.train.tokenizer import encode, train_tokenizer

POLISH_STEPS = 120


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="target/ and draft/ go here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--polish-steps", type=int, default=POLISH_STEPS, help="the last ones")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # sums in one order: the same seed gives the same weights
    corpus = gather()
    tokenizer = train_tokenizer(corpus.train)
    ids, held_out = encode(tokenizer, corpus.train), encode(tokenizer, corpus.held_out)
    plan = Plan(arguments.polish_steps)
    target, draft, seconds = train(ids, held_out, out, arguments.seed, plan)
    export(target.shape, target.weights, tokenizer, out / "target")
    export(draft.shape, draft.weights, tokenizer, out / "draft")
    run = {
        "seed": arguments.seed,
        "steps": plan.steps,
        "seconds": round(seconds),
        "machine": f"1 thread of {os.cpu_count()} on {processor()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "corpus_sha256": corpus.digest(),
        "train_modules": len(corpus.train),
        "train_tokens": len(ids),
        "target_parameters": count(target.weights),
        "draft_parameters": count(draft.weights),
    }
    (out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


if __name__ == "__main__":
    main()
