"""The pipe from the coordinator: frames out, results in, and what else the scheduler asks for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.coordinator.reception import INVENTORY
from daemon.layers import LayerRange
from daemon.ring import MAX_CHUNK_TOKENS, Ring
from daemon.scheduler import actions as sc
from daemon.scheduler.pipeline import Hop, Pipeline, StageCost
from daemon.service import settle
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec
from transports.errors import AddressError, TransportError
from transports.frame import Barrier, DType, Frame

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

FRAMES_PER_TURN = 64


class Pipe:
    def __init__(self, coordinator: Coordinator, ring: Ring) -> None:
        self._of = coordinator
        self._ring = ring
        self._todo: deque[sc.Action] = deque()
        self._performing = False
        self._kept: Mapping[str, tuple[str, LayerRange]] = {}  # of the last layout

    def up(self, up: cl.PipelineUp) -> None:
        """What runs goes on in this layout."""
        try:
            self._ring.connect(up.first_address)
        except AddressError as error:  # every send will fail and say so
            self._of.note("link-failed", "coordinator", str(error))
        costs = zip(up.step_seconds, up.prefill_token_seconds, strict=True)
        pipeline = Pipeline(
            up.term,
            up.epoch,
            tuple(StageCost(steps, prefill) for steps, prefill in costs),
            self._of.context_length,
            MAX_CHUNK_TOKENS,
            up.mixed,
            up.memory,
            self._hops(up),
        )
        # A stage process that was not in the last layout, or had other layers there, holds nothing
        # unless it was given that.
        nodes = [slot.node for slot in up.slots]
        lost = [i for i, node in enumerate(nodes) if self._kept.get(node) != up.kept.get(node)]
        self._kept = up.kept
        now = time.monotonic()
        self.perform(self._of.scheduler.configure(pipeline, now, lost=() if up.moved else lost))
        if up.moved:
            return  # people read on
        self._of.clients.streams.waiting(None)
        settle()  # the tokenizer's libraries, above all

    def barrier(self) -> None:
        """Send nothing more in this layout, and say so."""
        self.perform(self._of.scheduler.barrier(time.monotonic()))

    def lost(self, microbatch: int | None) -> None:
        """Issue it again, or all that is in flight."""
        self.perform(self._of.scheduler.link_failed(time.monotonic(), microbatch))

    def path_changed(self, change: cl.PathChanged) -> None:
        """What was known of the hop's speed was known of the other path."""
        scheduler = self._of.scheduler
        scheduler.stats.path_changed(change.stage + 1, change.path, time.monotonic())
        scheduler.hops.path_changed(change.stage)

    def _hops(self, up: cl.PipelineUp) -> tuple[Hop, ...]:
        model = self._of.model
        if model is None:
            return ()
        width, dtype = model.info.hidden_size, DType[model.info.dtype.upper()]
        return tuple(
            Hop(slot.layers.start, width, dtype, _both(before, after))
            for slot, (before, after) in zip(up.slots[1:], pairwise(up.codec_costs), strict=True)
        )

    def take_results(self) -> None:
        for _ in range(FRAMES_PER_TURN):
            frame = self._ring.receive()
            if frame is None:
                return
            if Barrier() not in frame.commands:
                self.perform(self._of.scheduler.result(frame, time.monotonic()))
            elif frame.term == self._of.cluster.term:
                self._of.happened(cl.BarrierReturned(frame.epoch))

    def perform(self, actions: Iterable[sc.Action]) -> None:
        """What an action leads to comes after those that are already to be done. Frames go first: a
        stage waits for them, while a client's text may come a moment later."""
        self._todo.extend(sorted(actions, key=lambda action: not isinstance(action, sc.Send)))
        if self._performing:
            return
        self._performing = True
        try:
            while self._todo:
                self._perform(self._todo.popleft())
        finally:
            self._performing = False

    def _perform(self, action: sc.Action) -> None:
        match action:
            case sc.Send():
                self._send(action.frame)
            case sc.Deliver():
                together = [action]
                while self._todo and isinstance(following := self._todo[0], sc.Deliver):
                    together.append(following)
                    self._todo.popleft()
                self._of.clients.streams.deliver(together)
            case sc.Finished():
                self._of.clients.streams.finished(action)
            case sc.Revoke():
                revoke = msg.Revoke(self._of.cluster.term, action.sequence, action.attempt)
                for slot in self._of.cluster.slots:
                    self._of.to_stage(slot.node, revoke)
            case sc.Propose():
                self._of.drafting.propose(action)
            case sc.Inquire():
                for slot in self._of.cluster.slots:
                    self._of.to_stage(slot.node, msg.KvQuery(INVENTORY))
            case sc.Suspect():
                self._of.note("overdue", "", f"microbatch {action.microbatch}: {action.why}")
                self._of.happened(cl.FrameOverdue(action.microbatch))

    def _send(self, frame: Frame) -> None:
        if not self._of.cluster.up:
            return  # the pipeline went down under this action: all of it is issued again
        try:
            self._ring.send(frame)
        except TransportError as error:
            self._of.note("link-failed", "coordinator", str(error))
            if Barrier() in frame.commands:
                self._of.happened(cl.RebalanceUnwanted(f"the barrier was not sent: {error}"))
            self.lost(frame.microbatch)


def _both(one: Mapping[Codec, Cost], other: Mapping[Codec, Cost]) -> dict[Codec, Cost]:
    """What both ends can use, at the cost of the slower."""
    return {
        codec: Cost(
            max(one[codec].frame_s, other[codec].frame_s),
            max(one[codec].row_s, other[codec].row_s),
        )
        for codec in one.keys() & other.keys()
    }
