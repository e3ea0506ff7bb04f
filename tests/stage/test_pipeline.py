"""Scheduler, workers and a real model over the in-memory link: faults change nothing but the time
it takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from daemon.engine.stage import Stage
from daemon.fidelity import Fidelity
from daemon.footprint import StageMemory
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from daemon.scheduler.actions import Deliver, Finished, Inquire, Send
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.scheduler.request import Request
from daemon.scheduler.scheduler import Scheduler
from daemon.scheduler.speculation.speculator import Guesser
from daemon.stage.codecs import RowCoder
from daemon.stage.worker import Worker
from tests.engine.tiny import PROMPT, Tiny
from transports.base import LinkReceiver, LinkSender
from transports.factory import open_receiver, open_sender
from transports.frame import Frame
from transports.limits import FrameLimits
from transports.network import MemoryNetwork
from transports.options import LinkOptions

MakeTiny = Callable[[str, int | None], Tiny]
HOPS = ("first", "second", "results")
LIMITS = FrameLimits.for_model(64 * 4, 512, 160)


def _worker(
    stage: Stage, index: int, clock: Callable[[], float], hidden_bytes: int = 1 << 20
) -> Worker:
    coder = RowCoder.of(stage.info)
    return Worker(stage, coder, index, clock, hidden_bytes=hidden_bytes)


class Rig:
    """Coordinator's scheduler, two stages or three and the links between them, under a clock that
    only we move.
    """

    def __init__(
        self,
        tiny: Tiny,
        seed: int = 0,
        cuts: tuple[int, ...] = (0, 2, 4),
        limits: Limits | None = None,
        budget: int = 1 << 30,
        guesser: Guesser | None = None,
        hidden_bytes: int = 1 << 20,
    ) -> None:
        self.now = 0.0
        self.network = MemoryNetwork(random.Random(seed), clock=lambda: self.now)
        options = LinkOptions(send_timeout_s=0.0, queue=64)
        opened: dict[str, Any] = {"network": self.network}
        self.hops = HOPS if len(cuts) == 3 else (*HOPS[:2], "third", "results")
        self.receivers: list[LinkReceiver] = [
            open_receiver(f"memory://{hop}", LIMITS, options, **opened) for hop in self.hops
        ]
        self.senders: list[LinkSender] = [
            open_sender(f"memory://{hop}", LIMITS, options, **opened) for hop in self.hops
        ]
        self.workers = [
            _worker(Stage.load(tiny.folder, LayerRange(a, b)), i, lambda: self.now, hidden_bytes)
            for i, (a, b) in enumerate(pairwise(cuts))
        ]
        self.scheduler = Scheduler(limits or Limits(), guesser)
        self.prompts: dict[bytes, tuple[int, ...]] = {}
        self.tokens: dict[bytes, list[int]] = {}
        self.finished: dict[bytes, Finished] = {}
        costs = (StageCost(((1, 0.01),), 0.001),) * len(self.workers)
        stages = [worker.stage for worker in self.workers]
        memory = tuple(StageMemory(budget, s.footprints(), s.reach) for s in stages)
        self.pipeline = Pipeline(1, 1, costs, 512, 8, memory=memory)
        self.perform(self.scheduler.configure(self.pipeline, self.now))

    def restart(self, *lost: int) -> None:
        """These stages begin again with nothing, in a new layout; what is under way is dropped."""
        for receiver in self.receivers:
            while receiver.receive(0) is not None:
                pass
        for i in lost:
            self.workers[i] = _worker(self.workers[i].stage, i, lambda: self.now)
        self.pipeline = replace(self.pipeline, epoch=self.pipeline.epoch + 1)
        self.perform(self.scheduler.configure(self.pipeline, self.now, lost=lost))

    def faults(self, **rates: float) -> None:
        for hop in self.hops:
            faults = self.network.faults(hop)
            for name, rate in rates.items():
                setattr(faults, name, rate)

    def submit(
        self,
        sequence: bytes,
        count: int,
        params: SamplingParams | None = None,
        fidelity: Fidelity | None = None,
        prompt: Sequence[int] = PROMPT,
        stop: Sequence[int] = (),
    ) -> None:
        self.prompts[sequence] = tuple(prompt)
        params, fidelity = params or SamplingParams(), fidelity or Fidelity()
        request = Request(sequence, tuple(prompt), count, params, frozenset(stop), fidelity)
        self.perform(self.scheduler.submit(request, self.now))

    def perform(self, actions: Any) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.senders[0].send(action.frame)
            elif isinstance(action, Deliver):
                told = self.tokens.setdefault(action.sequence, [])
                prompt = len(self.prompts[action.sequence])
                assert action.position == prompt + len(told), "out of order, or twice"
                told += action.tokens
            elif isinstance(action, Inquire):
                for stage, worker in enumerate(self.workers):
                    held = worker.ledger.held()
                    self.perform(self.scheduler.held(stage, held, self.now))
            elif isinstance(action, Finished):
                self.finished[action.sequence] = action

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn()

    def turn(self) -> bool:
        """Every stage and the coordinator take one frame each. False when there was none."""
        moved = False
        for i, worker in enumerate(self.workers):
            frame: Frame | None = self.receivers[i].receive(0)
            if frame is not None:
                self.senders[i + 1].send(worker.handle(frame, self.now))
                worker.check_integrity()
                moved = True
        result = self.receivers[-1].receive(0)
        if result is not None:
            self.perform(self.scheduler.result(result, self.now))
            moved = True
        self.now += 0.001
        self.scheduler.check_integrity()
        return moved

    def run(self, turns: int = 20000) -> None:
        """Until nothing runs any more."""
        for _ in range(turns):
            if not self.advance():
                return
        raise AssertionError("it does not come to an end")

    def advance(self) -> bool:
        """A turn; in a silent pipe time passes to the next deadline. False when there is none."""
        if self.turn():
            return True
        wake = self.scheduler.next_wake()
        if wake is not None:
            self.now = max(self.now, wake)
            self.perform(self.scheduler.tick(self.now))
        return wake is not None

    @property
    def reissues(self) -> int:
        return sum(self.scheduler.reissues.values())


@pytest.fixture
def llama(tiny: MakeTiny) -> Tiny:
    return tiny("llama", None)


def test_without_faults_nothing_is_issued_twice(llama: Tiny) -> None:
    rig = Rig(llama)
    rig.submit(b"a" * 16, 24)
    rig.run()
    assert tuple(rig.tokens[b"a" * 16]) == llama.reference[:24]
    assert rig.reissues == 0
    kept = {b"a" * 16: len(PROMPT) + 23}  # the last token was not computed
    assert all(worker.ledger.held() == kept for worker in rig.workers)
    rig.perform(rig.scheduler.evict(b"a" * 16, rig.now))
    rig.run()
    assert all(not worker.caches for worker in rig.workers), "the release reached every stage"


@pytest.mark.parametrize("hop", HOPS)
@pytest.mark.parametrize("after", [0, 3, 9])
def test_one_loss_costs_one_reissue(llama: Tiny, hop: str, after: int) -> None:
    rig = Rig(llama)
    rig.submit(b"a" * 16, 16)
    rig.turns(after)
    rig.network.faults(hop).drop_next = 1
    rig.run()
    assert tuple(rig.tokens[b"a" * 16]) == llama.reference[:16]
    # The result of a chunk inside the prompt says nothing that a later one does not say as well.
    assert rig.reissues == (0 if (hop, after) == ("results", 0) else 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "rates",
    [
        {"duplicate": 0.3},
        {"reorder": 0.4},
        {"hold": 0.4},
        {"drop": 0.05, "duplicate": 0.1, "reorder": 0.1, "hold": 0.1},
    ],
    ids=["doubled", "reordered", "delayed", "all"],
)
def test_faults_change_no_token(llama: Tiny, seed: int, rates: dict[str, float]) -> None:
    rig = Rig(llama, seed)
    rig.faults(**rates)
    names = [bytes([65 + n]) * 16 for n in range(3)]
    for n, name in enumerate(names):
        rig.submit(name, 12 + n)
    rig.run()
    for n, name in enumerate(names):
        assert tuple(rig.tokens[name]) == llama.reference[: 12 + n]


def test_sampling_is_the_same_whatever_is_lost(llama: Tiny) -> None:
    params = SamplingParams(temperature=9.0, top_k=40, seed=11, repetition_penalty=1.2)
    calm, rough = Rig(llama), Rig(llama, seed=5)
    rough.faults(drop=0.1, duplicate=0.1)
    for rig in (calm, rough):
        rig.submit(b"s" * 16, 20, params)
        rig.run()
    assert rough.reissues > 0
    assert rough.tokens == calm.tokens
    assert tuple(calm.tokens[b"s" * 16]) != llama.reference[:20]


def test_a_stage_that_lost_everything_is_refilled(llama: Tiny) -> None:
    rig = Rig(llama)
    rig.submit(b"a" * 16, 30)
    rig.turns(12)
    old = rig.workers[1]
    rig.workers[1] = _worker(old.stage, 1, lambda: rig.now)
    rig.run()
    assert tuple(rig.tokens[b"a" * 16]) == llama.reference[:30]
    assert rig.reissues == 1, "one Nack, one re-issue"
