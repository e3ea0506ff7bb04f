"""What the cluster asks for, carried out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.coordinator.pipe import Pipe

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator


class Acting:
    def __init__(self, coordinator: Coordinator, pipe: Pipe) -> None:
        self._of = coordinator
        self._pipe = pipe

    def do(self, actions: Iterable[cl.Action]) -> None:
        of = self._of
        for action in actions:
            match action:
                case cl.ToNode():
                    of.to_node(action.node, action.message)
                case cl.ToStage():
                    of.to_stage(action.node, action.message)
                case cl.PipelineUp():
                    if action.moved:  # what stages were reading for the layout before
                        of.saved_kv.pipeline_down()
                    self._pipe.up(action)
                case cl.SendBarrier():
                    self._pipe.barrier()
                case cl.PipelineDown():
                    of.note("pipeline-down", "", action.why)
                    now = time.monotonic()
                    of.perform(of.scheduler.configure(None, now, intended=action.intended))
                    of.saved_kv.pipeline_down()
                    of.clients.streams.waiting(action.why)
                case cl.RebalanceEnded():
                    of.clients.rebalancing.ended(action)
                case cl.LinkLost() | cl.FramesLost():
                    self._pipe.lost(action.microbatch if isinstance(action, cl.LinkLost) else None)
                case cl.GroupLost():
                    of.rdma.lost(action)
                case cl.PathChanged():
                    self._pipe.path_changed(action)
                case cl.LoadEnded():
                    self._load_ended(action.failure)
                case cl.Note():
                    of.note(action.kind, action.node, action.text)
                    if action.kind == "load-failed" and not of.cluster.up:
                        of.clients.streams.waiting(action.text)  # there may be nothing else to hear

    def _load_ended(self, failure: msg.Failure | None) -> None:
        of = self._of
        if failure:
            of.clients.streams.cancel_all()
            of.scheduler.residency.forget()
            of.model = None
        of.clients.loading.ended(failure)
