"""Talking with a drafter as a coordinator would."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

from daemon.draft.drafter import Drafter, Guess, Lag
from daemon.engine.stage import Row, Stage
from daemon.history import History
from daemon.sampling import SamplingParams

GREEDY = SamplingParams()
PROMPT = tuple(range(20, 50))
S1, S2, S3 = (bytes([n]) * 16 for n in (1, 2, 3))


def ask(
    drafter: Drafter,
    sequence: bytes,
    tokens: Sequence[int],
    ahead: int,
    *,
    since: int = 0,
    params: SamplingParams = GREEDY,
    now: float = 0.0,
) -> Guess | Lag | None:
    """Guess `ahead` tokens after `tokens`, of which the first `since` were told before."""
    constants = {"sampling": params.to_wire(), "kv_bits": 0, "codecs": []}
    prefix_hash = History(tokens).hash_at(since)
    answer = drafter.propose(
        sequence, since, prefix_hash, tokens[since:], len(tokens) + ahead, constants, now
    )
    drafter.check_integrity()
    return answer


def finish(drafter: Drafter, told: dict[bytes, Sequence[int]]) -> dict[bytes, list[int]]:
    """Every guess until there is nothing to do; each must fit what was said before it."""
    lines = {sequence: History(tokens) for sequence, tokens in told.items()}
    while drafter.busy:
        for guess in drafter.step():
            line = lines[guess.sequence]
            assert guess.position == len(line)
            assert guess.prefix_hash == line.hash_at(len(line))
            line.extend(guess.tokens)
        drafter.check_integrity()
    return {key: line.tokens[len(told[key]) :] for key, line in lines.items()}


@cache
def continuation(folder: Path, prompt: tuple[int, ...], n: int) -> list[int]:
    """What mlx-lm generates greedily in one process."""
    model, _ = load_model(folder)
    return [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=n)]


def sampled(stage: Stage, prompt: Sequence[int], n: int, params: SamplingParams) -> list[int]:
    """What the engine itself chooses, as the stage of a pipeline would."""
    cache, history = stage.new_cache(), [*prompt]
    new: Sequence[int] = prompt
    for _ in range(n):
        (choice,) = stage.run([Row(cache, new, history, 1, params)])
        history += (new := choice.tokens)  # type: ignore[union-attr]
    return history[len(prompt) :]


class Counting:
    """Passes a stage's rows on, and counts the tokens that it takes in."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.passes: list[list[int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._stage, name)

    def run(self, rows: Sequence[Row]) -> object:
        self.passes.append([len(row.tokens) for row in rows])
        return self._stage.run(rows)

    def taken(self) -> int:
        total = sum(map(sum, self.passes))
        self.passes.clear()
        return total
