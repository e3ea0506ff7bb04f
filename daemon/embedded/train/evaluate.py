"""Measures the exported models on held-out text and writes `training.json`.

`python -m daemon.embedded.train.evaluate --run DIR` adds what DIR/run.json says of the training.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm import load
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_sampler

from daemon.embedded import DRAFT, RECORD, TARGET
from daemon.embedded.train.corpus import Module, gather
from daemon.embedded.train.parseable import Lines, in_text, judge
from daemon.embedded.train.tokenizer import CONTEXT

Model = Callable[[mx.array], mx.array]

WINDOW = 512
CONTINUATION = 120  # tokens
_PROMPT_CHARACTERS = 3000


@dataclass(frozen=True)
class Scores:
    """What both models make of the same tokens, each predicted from those before it."""

    tokens: int
    target_nats: float  # per token
    draft_nats: float
    target_accuracy: float
    draft_accuracy: float
    agreement: float  # share of tokens where both have the same first choice


def windows(ids: Sequence[int], length: int = WINDOW) -> mx.array:
    """Rows of `length` + 1 ids, each beginning with the last id of the row before."""
    rows = (len(ids) - 1) // length
    return mx.array([ids[row * length : row * length + length + 1] for row in range(rows)])


def predict(model: Model, rows: mx.array) -> tuple[mx.array, mx.array]:
    """The loss of each next id in the rows, and the model's first choice for it."""
    logits = model(rows[:, :-1])
    return nn.losses.cross_entropy(logits, rows[:, 1:]), logits.argmax(-1)


def score(target: Model, draft: Model, rows: mx.array, batch: int = 8) -> Scores:
    """Teacher-forced scores of both models over all rows."""
    sums = np.zeros(5)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        (loss, choice), (draft_loss, draft_choice) = predict(target, part), predict(draft, part)
        wanted = part[:, 1:]
        hits = (choice == wanted, draft_choice == wanted, choice == draft_choice)
        sums += np.array(mx.stack([loss.sum(), draft_loss.sum(), *(hit.sum() for hit in hits)]))
    tokens = len(rows) * (rows.shape[1] - 1)
    return Scores(tokens, *(float(total) for total in sums / tokens))


def prompts(modules: Sequence[Module]) -> list[str]:
    """The beginnings of modules, each cut after a line that opens a function. The end of that
    line is left to the model: one token holds it together with the indentation."""
    found = []
    for module in modules:
        lines = module.text[:_PROMPT_CHARACTERS].split("\n")[:-1]
        for end in range(len(lines), 0, -1):
            line, before = lines[end - 1], "\n".join(lines[: end - 1]) + "\n"
            if line.strip().startswith("def ") and line.endswith(":") and not in_text(before):
                found.append(before + line)
                break
    return found


def generate(
    model: Model,
    ids: Sequence[int],
    eos: int,
    temperature: float = 0.0,
    tokens: int = CONTINUATION,
) -> list[int]:
    """The continuation of `ids` by up to `tokens` tokens."""
    sampler = make_sampler(temp=temperature)
    new: list[int] = []
    for token, _ in generate_step(mx.array(list(ids)), model, max_tokens=tokens, sampler=sampler):
        if token == eos:
            break
        new.append(int(token))
    return new


def measure_continuations(
    target: Model, draft: Model, tokenizer: Any, texts: Sequence[str], temperature: float
) -> dict[str, float]:
    """How parseable the target's continuations are, and how often the draft foresees them."""
    mx.random.seed(0)
    lines, same, total = Lines(0, 0, 0), 0, 0
    for text in texts:
        ids = tokenizer.encode(text)
        new = generate(target, ids, tokenizer.eos_token_id, temperature)
        if not new:
            continue
        lines += judge(text, tokenizer.decode(new))
        _, choice = predict(draft, mx.array([ids + new]))
        same += int(np.sum(np.array(choice[0, -len(new) :]) == np.array(new)))
        total += len(new)
    return {
        "prompts": len(texts),
        "lines": lines.good + lines.bad,
        "lines_in_strings": lines.text,
        "parseable_share": round(lines.share, 4),
        "draft_agreement": round(same / max(1, total), 4),
    }


def evaluate() -> dict[str, Any]:
    """Every number in the record that comes from the stored weights."""
    target, tokenizer = load(str(TARGET))[:2]
    draft = load(str(DRAFT))[0]
    modules = gather().held_out
    ids: list[int] = []
    for module in modules:
        ids += [*tokenizer.encode(module.text), tokenizer.eos_token_id]
    bytes_per_token = sum(len(module.text.encode()) for module in modules) / len(ids)
    # Every third window: 100,000 tokens spread over all modules, minutes rather than a quarter
    # of an hour where MLX multiplies with the reference BLAS.
    scores = score(target, draft, windows(ids)[::3])
    long = windows(ids, CONTEXT)[:2]
    loss = np.array(predict(target, long)[0]).mean(0)
    texts = prompts(modules)[::3]
    return {
        "held_out_modules": len(modules),
        "held_out": {key: round(value, 4) for key, value in asdict(scores).items()},
        "bytes_per_token": round(bytes_per_token, 4),
        "target_bits_per_byte": round(scores.target_nats / math.log(2) / bytes_per_token, 4),
        "draft_bits_per_byte": round(scores.draft_nats / math.log(2) / bytes_per_token, 4),
        "target_nats_by_position": {
            f"{start}-{start + 512}": round(float(loss[start : start + 512].mean()), 4)
            for start in (0, 512, 1024, 2048, 3072, 3584)
        },
        "greedy": measure_continuations(target, draft, tokenizer, texts, 0.0),
        "sampled_at_0.7": measure_continuations(target, draft, tokenizer, texts, 0.7),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="the folder that training wrote")
    run: Path | None = parser.parse_args().run
    if run is not None:
        training = json.loads((run / "run.json").read_text())
    else:
        training = json.loads(RECORD.read_text())["training"]
    record = {"training": training, "evaluation": evaluate()}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
