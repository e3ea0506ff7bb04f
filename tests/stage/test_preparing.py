"""What is prepared for a move: what is awaited of whom, and what is held when it is taken over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from daemon import messages as msg
from daemon.config import Config
from daemon.config.sections import CoordinatorConfig, NodeConfig
from daemon.engine.digest import weights_digest
from daemon.engine.stage import Stage
from daemon.fidelity import Fidelity
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from daemon.stage.background import Done
from daemon.stage.codecs import RowCoder
from daemon.stage.loading import Ready, load_stage
from daemon.stage.mailbox import Mailbox
from daemon.stage.preparing import Preparation
from daemon.stage.worker import Worker
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Tiny
from transports.frame import Frame, FrameKind, Span

A = b"a" * 16
CONFIG = Config(NodeConfig(name="a"), CoordinatorConfig())


@dataclass
class Place:
    """As daemon.stage.place, without its ring."""

    folder_: Path
    worker: Worker | None = None
    held: msg.Loaded | None = None
    said: list[Any] = field(default_factory=list)
    data_address: str = "tcp://127.0.0.1:1"

    @property
    def layers(self) -> LayerRange | None:
        return self.worker.stage.layers if self.worker else None

    def clock(self) -> float:
        return 0.0

    def folder(self, name: str, told: str) -> Path:
        return self.folder_

    def open_ring(self, ready: Ready) -> str:
        return self.data_address

    def told(self, ready: Ready, digest: str) -> msg.Loaded:
        return ready.told("a", "i", digest, self.data_address)

    def uses(self, stage: Stage) -> bool:
        return self.worker is not None and self.worker.stage is stage

    def hold(self, worker: Worker, held: msg.Loaded) -> None:
        self.worker, self.held = worker, held


class Rig:
    """A stage with layers [0, 2) that holds a sequence."""

    def __init__(self, model: Tiny) -> None:
        self.model, self.digest = model, weights_digest(model.folder)
        self.context: zmq.Context[Any] = zmq.Context()
        self.reports: Mailbox[Done] = Mailbox()
        self.place = Place(model.folder)
        first = msg.Prepare(1, 1, "m", str(model.folder), self.digest, 0, 2, False)
        ready = load_stage(first, model.folder, CONFIG.node, lambda done, total: None)
        self.place.hold(
            Worker(ready.stage, RowCoder.of(ready.stage.info), 0, lambda: 0.0, self.digest),
            self.place.told(ready, self.digest),
        )
        constants = {A: {"sampling": SamplingParams().to_wire(), **Fidelity().to_wire()}}
        span = Span(A, 1, 0, len(PROMPT), 0)
        work = Frame(FrameKind.WORK, 1, 1, 1, (span,), tuple(PROMPT), constants)
        assert self.place.worker
        self.place.worker.handle(work, 0.0)

    def prepare(self, start: int, end: int, spare: bool) -> Preparation:
        """Until it has answered."""
        folder = str(self.model.folder)
        asked = msg.Prepare(1, 2, "m", folder, self.digest, start, end, spare)
        place: Any = self.place
        coming = Preparation(
            asked, self.context, CONFIG, "i", place, self.reports, self.place.said.append
        )
        coming.loaded(self.reports.take())
        return coming

    def close(self) -> None:
        self.reports.close()
        self.context.term()


@pytest.fixture
def rig(tiny: MakeTiny) -> Iterator[Rig]:
    rig = Rig(tiny("llama", None))
    yield rig
    rig.close()


def gained(coming: Preparation) -> frozenset[int]:
    """Layers whose KV is awaited."""
    assert coming.ready
    assert coming.taking
    return coming.taking._gained


def test_who_has_a_place_is_given_what_it_lacks(rig: Rig) -> None:
    coming = rig.prepare(1, 4, spare=False)
    assert gained(coming) == {2, 3}
    coming.take_over(with_kv=True)
    assert rig.place.worker
    assert rig.place.worker.stage.layers == LayerRange(1, 4)
    assert not rig.place.worker.caches, "nobody has given the other layers of it"
    coming.close()


@pytest.mark.parametrize("layers", [(1, 3), (0, 2)])
def test_a_spare_keeps_its_layers_and_is_given_all_kv(rig: Rig, layers: tuple[int, int]) -> None:
    coming = rig.prepare(*layers, spare=True)
    assert gained(coming) == {*range(*layers)}
    coming.take_over(with_kv=True)
    assert rig.place.layers == LayerRange(*layers)
    assert rig.place.worker
    assert not rig.place.worker.caches, "they are of an earlier layout"
    coming.close()


def test_what_has_no_room_is_not_prepared(rig: Rig) -> None:
    worker, told = rig.place.worker, rig.place.held
    assert worker
    assert told
    layer = worker.stage.info.layer_bytes[2]
    held = worker.stage.weights_bytes + worker.kv_bytes
    rig.place.held = replace(told, memory_bytes=held + layer)
    coming = rig.prepare(0, 3, spare=False)
    assert coming.ready is None
    assert "of their KV are to be held beside" in rig.place.said[-1].why
