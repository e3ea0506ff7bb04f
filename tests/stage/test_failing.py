"""A row that cannot be computed costs those beside it nothing but time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest

from daemon.engine.stage import Row, Stage
from daemon.history import History
from daemon.stage.codecs import RowCoder
from daemon.stage.worker import Worker
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, load_split
from transports.frame import Departure, Frame, FrameKind, Reason, Span

GOOD, BAD, ALSO_GOOD = b"a" * 16, b"b" * 16, b"c" * 16
POISON = 150
_run = Stage.run


class Broken:
    """Raises for batches of `stage` with a poisoned row: before the pass, midway, after it."""

    def __init__(self, where: str, stage: Stage) -> None:
        self.where, self.stage = where, stage
        self.sizes: list[int] = []
        self._layer: Any = None

    def run(self, stage: Stage, rows: Sequence[Row], hidden: Any = None) -> Any:
        poisoned = [row for row in rows if POISON in row.tokens]
        if stage is not self.stage or not poisoned:
            return _run(stage, rows, hidden)
        self.sizes.append(len(rows))
        if self.where == "midway":
            self._layer = poisoned[0].cache.own[-1]
        if self.where != "before":
            _run(stage, rows, hidden)
        raise RuntimeError("poison")

    def append(self, append: Any, layer: Any, keys: mx.array, values: mx.array) -> Any:
        if layer is self._layer:
            raise RuntimeError("poison")
        return append(layer, keys, values)


def frame(microbatch: int, tokens: dict[bytes, list[int]], position: dict[bytes, int]) -> Frame:
    """What comes after the first positions of these; one more token of each is wanted."""
    spans, fresh = [], []
    for sequence, known in tokens.items():
        start = position.get(sequence, 0)
        prefix_hash = History(known).hash_at(start)
        spans.append(Span(sequence, 1, start, len(known) - start, prefix_hash, 1))
        fresh += known[start:]
    constants = {sequence: {"sampling": {}, "kv_bits": 0, "codecs": []} for sequence in tokens}
    return Frame(FrameKind.WORK, 1, 1, microbatch, tuple(spans), tuple(fresh), constants)


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("where", ["before", "midway", "after"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_only_the_guilty_row_fails(
    architecture: str, where: str, failing: int, tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(architecture, None)
    stages = load_split(model.folder, (0, 3, model.layers))
    workers = [
        Worker(stage, RowCoder.of(stage.info), i, lambda: 0.0) for i, stage in enumerate(stages)
    ]
    broken = Broken(where, stages[failing])
    monkeypatch.setattr(Stage, "run", lambda *given: broken.run(*given))
    for kind in {type(layer) for stage in stages for layer in stage.new_cache().own}:
        append = kind.update_and_fetch
        monkeypatch.setattr(
            kind, "update_and_fetch", lambda *given, append=append: broken.append(append, *given)
        )
    tokens = {sequence: list(PROMPT) for sequence in (GOOD, BAD, ALSO_GOOD)}
    position: dict[bytes, int] = {}
    for step in range(12):
        if step == 4:
            tokens[BAD][-1] = POISON
        sent = frame(step, tokens, position)
        for worker in workers:
            sent = worker.handle(sent, 0.0)
            worker.check_integrity()
        if step == 4:
            assert sent.departures == (Departure(BAD, 1, failing, Reason.FAILED, 0),)
            assert BAD not in workers[failing].caches
            del tokens[BAD]
        else:
            assert not sent.departures
        assert [span.sequence for span in sent.spans] == list(tokens)
        position = {sequence: len(known) for sequence, known in tokens.items()}
        for span, token in zip(sent.spans, sent.tokens, strict=True):
            tokens[span.sequence].append(token)
    assert broken.sizes == [3, 1]
    for sequence in (GOOD, ALSO_GOOD):
        assert tuple(tokens[sequence][len(PROMPT) :]) == model.reference[:12]
