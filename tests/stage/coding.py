"""What coded hidden states must lead to: two stages in one process, one sequence by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daemon.engine.stage import Row
from daemon.sampling import SamplingParams
from daemon.stage.codecs import RowCoder
from tests.engine.tiny import load_split
from transports.codecs.layout import Codec


def coded_tokens(
    folder: Path, cuts: Sequence[int], codec: Codec, prompt: Sequence[int], count: int
) -> list[int]:
    """Greedy."""
    stages = load_split(folder, cuts)
    coder, caches = RowCoder.of(stages[0].info), [stage.new_cache() for stage in stages]
    tokens, history, out = list(prompt), list(prompt), list[int]()
    while len(out) < count:
        rows = [Row(cache, tokens, history, 1, SamplingParams()) for cache in caches]
        (hidden,) = stages[0].run(rows[:1])
        hidden = coder.decode(coder.encode(codec, hidden))
        (sampled,) = stages[1].run(rows[1:], [hidden])
        tokens = list(sampled.tokens)
        history = history + tokens
        out += tokens
    return out
