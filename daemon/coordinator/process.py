"""The coordinator process: requests in, tokens out, and the cluster kept in its layout.

One thread, one blocking poll over the control socket, the results' link and the desk where slow
work is done. All decisions are made by `cluster.Cluster` and `scheduler.Scheduler`, and both are
told what happened. What the first asks for is carried out by `Acting`, what the second does by
`Pipe`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import zmq

from daemon import logs
from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.machine import Cluster
from daemon.cluster.rules import Rules
from daemon.config import Config
from daemon.control import open_router
from daemon.coordinator.acting import Acting
from daemon.coordinator.clients import Clients
from daemon.coordinator.desk import Desk
from daemon.coordinator.drafting import Drafting
from daemon.coordinator.journal import Journal
from daemon.coordinator.models import Catalogue, ServedModel
from daemon.coordinator.pipe import Pipe
from daemon.coordinator.rdma import RdmaGroups
from daemon.coordinator.reception import Reception
from daemon.coordinator.reign import Reign
from daemon.coordinator.saved_kv import SavedKv
from daemon.ring import MAX_CHUNK_TOKENS, Ring
from daemon.scheduler import actions as sc
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.scheduler import Scheduler
from transports.address import Address

log = logs.get("coordinator")

TICK_SECONDS = 0.25
STALL_SECONDS = 1.0  # a tick that is later than this was held up, and with it what others said
DEFAULT_CONTEXT = 131072  # for a model whose configuration does not say
KEPT_EVENTS = 1000
SEND_SECONDS = 0.05  # everybody waits while one frame cannot be handed over
CONNECT_SECONDS = 1.0


class Coordinator:
    def __init__(self, config: Config, parent: int, reign: Reign) -> None:
        """`parent` is the pid of its shardd. Raises AddressError when the control address cannot be
        bound.
        """
        self.config = config
        self._parent = parent
        self._reign = reign
        self.began = time.monotonic()
        self._context: zmq.Context[Any] = zmq.Context()
        self._router, self.address = open_router(self._context, config.coordinator.address)
        self.catalogue = Catalogue(config.models)
        self.model: ServedModel | None = None
        rules = Rules(
            config.coordinator.cluster,
            config.node.name,
            MAX_CHUNK_TOKENS,
            dead_after=config.timeouts.dead_after_s,
            replan_after=config.timeouts.replan_s,
        )
        self.cluster = Cluster(rules, reign.term)
        self.scheduler = Scheduler(
            Limits(
                speculate=config.coordinator.speculation == "auto",
                codec=config.coordinator.codec,
            )
        )
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        self.journal = Journal(
            config.node.state_dir / "journal", lambda text: self.note("journal", "", text)
        )
        self.desk = Desk()
        self.saved_kv = SavedKv(self)
        self.drafting = Drafting(self)
        self.rdma = RdmaGroups(self)
        self.clients = Clients(self)
        self._reception = Reception(self)
        # The stage of this node has the configured port.
        results = str(replace(Address.parse(config.node.data_address), port=0))
        networks = config.security.plain_networks
        self._poller = zmq.Poller()
        waits = (SEND_SECONDS, self._poller, CONNECT_SECONDS)
        self._ring = Ring(self._context, results, networks, *waits)
        self._pipe = Pipe(self, self._ring)
        self._acting = Acting(self, self._pipe)
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self.desk.wake, zmq.POLLIN)
        self._next_tick = 0.0
        self.stopping = False
        self._stop_at = float("inf")

    @property
    def dropped(self) -> dict[str, int]:
        """What came to the coordinator's own sockets and was no message or frame, by cause."""
        return {"control": self._reception.dropped, **self._ring.dropped}

    @property
    def closing(self) -> bool:
        """Whether no new request is taken: this process is about to end, or a stage that nobody
        takes the place of.
        """
        return self.stopping or self.clients.draining.staying

    @property
    def state(self) -> str:
        """One of the words of docs/protocol.md."""
        if self.closing:
            return "draining"
        leaving = self.cluster.state == "draining"  # and its layers move to others
        return "ready" if leaving else self.cluster.state

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits."""
        return next(self.scheduler.sequences(), None) is None and not self.clients.intake.waiting

    def stop(self) -> None:
        """From a signal handler: take no new request, end when the running ones have."""
        self.stopping = True
        # Its shardd waits so long and then kills: the clients are to hear of it before.
        self._stop_at = time.monotonic() + max(0.5, self.config.timeouts.drain_s - 2.0)

    def run(self) -> None:
        self.clients.resuming.take_over(self.journal.open())
        self.clients.draining.begin()
        self.clients.loading.load_at_start()
        self.clients.conversations.scan()
        try:
            while not (self.stopping and (self.idle or time.monotonic() > self._stop_at)):
                self._turn()
                if os.getppid() != self._parent:
                    log.warning("shardd is gone: ending")
                    return
        finally:
            self._close()

    def _turn(self) -> None:
        now = time.monotonic()
        due = self._next_tick
        wake = self.scheduler.next_wake()
        if wake is not None:
            due = min(due, wake)
        ready = dict(self._poller.poll(max(0, int((due - now) * 1000) + 1) if due > now else 0))
        if not self._reign.lasts():
            log.error("another coordinator has taken node.state_dir over: this one ends")
            os._exit(1)  # at once: nothing that waits to be sent or written counts any more
        if self._router in ready:
            self._reception.take(self._router)
        if self._ring.readable(ready):
            self._pipe.take_results()
        if self.desk.wake in ready:
            self.desk.finish()
        now = time.monotonic()
        if now >= self._next_tick:
            late = now - self._next_tick if self._next_tick else 0.0
            self._next_tick = now + TICK_SECONDS
            self.happened(cl.Tick(late if late > STALL_SECONDS else 0.0))
            self.saved_kv.tick(now)
            self.drafting.tick(now)
            self.rdma.tick()
            self.clients.tick(now)
            self.journal.tick(now)
            self._ring.refresh()
        wake = self.scheduler.next_wake()
        if wake is not None and now >= wake:
            self.perform(self.scheduler.tick(now))

    def _close(self) -> None:
        """When it was not asked to end, what runs is left to the coordinator that follows."""
        if self.stopping:
            self.clients.streams.close()
        self.desk.close()
        self.clients.conversations.close()
        self._ring.close(0.2)
        self._router.close(linger=500)
        self._context.term()

    # --- control ---

    def say(self, peer: bytes, message: msg.Message) -> bool:
        """False when that peer is not connected (any more)."""
        try:
            self._router.send_multipart([peer, msg.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH, or EAGAIN: it takes nothing
            return False
        return True

    def raise_term(self, term: int) -> None:
        """Somebody obeyed a later coordinator than this one knew of."""
        log.warning("term raised from %d to %d", self.cluster.term, term)
        self.do(self.cluster.new_term(self._reign.next_term(at_least=term), time.monotonic()))

    # --- cluster ---

    def happened(self, event: cl.Event) -> None:
        """Tell the cluster, and do what it asks for."""
        self.do(self.cluster.step(event, time.monotonic()))
        self.clients.rebalancing.look()

    def do(self, actions: Iterable[cl.Action]) -> None:
        self._acting.do(actions)

    def to_node(self, node: str, message: msg.Message) -> bool:
        """False when it is not connected."""
        member = self.cluster.members.get(node)
        known = member.node if member else None
        return known is not None and self._to(f"node:{node}:{known.incarnation}", message)

    def to_stage(self, node: str, message: msg.Message) -> None:
        member = self.cluster.members.get(node)
        if member and member.stage:
            self._to(f"stage:{node}:{member.stage.incarnation}", message)

    def _to(self, peer: str, message: msg.Message) -> bool:
        if said := self.say(peer.encode(), message):
            return said
        log.warning("%s not reached with %s", peer, type(message).__name__)
        return False

    @property
    def context_length(self) -> int:
        """Tokens that a sequence may have, prompt and answer together."""
        return self.context_of(self.model)

    def context_of(self, model: ServedModel | None) -> int:
        """The same of a model that may be loaded."""
        return (model.info.context_length if model else 0) or DEFAULT_CONTEXT

    def want(
        self, model: ServedModel, nodes: tuple[str, ...], split: tuple[int, ...], at_once: bool
    ) -> None:
        """Load this model; what runs is cancelled. AddressError when results cannot be taken."""
        results = self._ring.open(model.info.hidden_size, model.info.vocab_size)
        self.clients.streams.cancel_all()
        if self.model is None or self.model.spec.digest != model.spec.digest:
            self.scheduler.residency.forget()
        self.model = model
        self.happened(cl.ModelWanted(model.spec, results, nodes, split, at_once))

    def unwant(self) -> None:
        """Unload; what runs is cancelled."""
        self.clients.streams.cancel_all()
        self.scheduler.residency.forget()
        self.happened(cl.ModelUnwanted())
        self.model = None

    # --- scheduler ---

    def perform(self, actions: Iterable[sc.Action]) -> None:
        self._pipe.perform(actions)

    # --- people ---

    def note(self, kind: str, node: str, text: str) -> None:
        event = {"time": time.time(), "kind": kind, "node": node, "text": text}
        self.events.append(event)
        log.info("%s%s: %s", f"{node} " if node else "", kind, text)
        self.clients.event(event)

    def new_sequence(self) -> bytes:
        return secrets.token_bytes(16)
