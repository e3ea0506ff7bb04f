"""What comes in on the control socket, and to whom it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import zmq

from daemon import logs
from daemon import messages as msg
from daemon.coordinator.admission import Rivals, refusal
from transports.frame import SEQUENCE_ID_BYTES

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("reception")

MESSAGES_PER_TURN = 64
INVENTORY = 0  # number of the query that asks stages what they hold; clients' are higher


class Reception:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._rivals = Rivals(coordinator.config.timeouts.dead_after_s)
        self.dropped = 0

    def take(self, router: zmq.Socket[Any]) -> None:
        """Read what is there, but not for ever: frames wait meanwhile."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                parts = router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = msg.decode(parts[-1])
            except msg.MessageError as error:
                self.dropped += 1
                log.warning("dropped a control message of %d parts: %s", len(parts), error)
                continue
            try:
                self._hear(parts[0], message)
            except Exception:  # what one peer says must not end everybody's requests
                self.dropped += 1
                log.exception("a %s could not be handled", type(message).__name__)

    def _hear(self, peer: bytes, message: msg.Message) -> None:
        of = self._of
        match message:
            case msg.Request():
                of.clients.request(peer, message)
            case msg.NodeHello():
                self._node_hello(peer, message)
            case msg.StageHello():
                self._stage_hello(peer, message)
            case msg.Heartbeat():
                self._heartbeat(peer, message)
            case msg.NodeHeartbeat():
                if self._known_node(message.node) != message.incarnation:
                    of.say(peer, msg.Identify(of.cluster.term))
                of.happened(message)
            case msg.KvReport() if message.query == INVENTORY:
                self._inventory(message)
            case msg.KvReport() | msg.LogsReport() | msg.PortsReport():
                of.clients.queries.report(message)
            case msg.KvStored():
                of.saved_kv.disks.stored(message)
            case msg.KvSaved():
                of.saved_kv.saved(message)
            case msg.KvRestored():
                of.saved_kv.restored(message)
            case msg.DraftHello():
                self._draft_hello(peer, message)
            case msg.DraftBeat() | msg.Proposed() | msg.DraftLags():
                of.drafting.hear(message, peer)
            case msg.ChildExited():
                of.drafting.exited(message)
                of.happened(message)
            case msg.Loaded():
                of.happened(message)
                of.clients.planning.loaded(message)
            case msg.Profiled():
                of.clients.planning.profiled(message)
            case msg.Goodbye():
                of.happened(message)
                of.clients.draining.leaving(message.node)
            case msg.LoadFailed() | msg.Assigned() | msg.LinkFailed():
                of.happened(message)
            case msg.PathTaken() | msg.PathLost():
                of.happened(message)
            case msg.RdmaOffer():
                if self._known_node(message.node) == message.incarnation:
                    of.rdma.hear(message)
            case msg.RdmaJoined() | msg.RdmaProbed():
                of.rdma.hear(message)
            case msg.RdmaBeat():
                of.rdma.beat(message)
            case msg.Prepared() | msg.Giving():
                of.happened(message)
            case _:
                self.dropped += 1
                log.warning("dropped an unexpected %s", type(message).__name__)

    def _known_node(self, node: str) -> str | None:
        member = self._of.cluster.members.get(node)
        return member.node.incarnation if member and member.node else None

    def _known_stage(self, node: str) -> str | None:
        member = self._of.cluster.members.get(node)
        return member.stage.incarnation if member and member.stage else None

    def _refused(self, peer: bytes, node: str, refused: msg.Refused | None) -> bool:
        if refused:
            self._of.note("refused", node, refused.what)
            self._of.say(peer, refused)
        return refused is not None

    def _node_hello(self, peer: bytes, hello: msg.NodeHello) -> None:
        of, now = self._of, time.monotonic()
        if self._refused(peer, hello.node, refusal(hello, of.cluster.members.values())):
            return
        if self._rivals.must_wait(hello, of.cluster.members.get(hello.node), now):
            self._refused(peer, hello.node, self._rivals.refusal(hello, now))
            return
        if hello.term > of.cluster.term:
            of.raise_term(hello.term + 1)
        of.say(peer, msg.Welcome(of.cluster.term, of.cluster.rules.cluster))
        of.happened(hello)

    def _stage_hello(self, peer: bytes, hello: msg.StageHello) -> None:
        of = self._of
        if self._known_node(hello.node) != hello.node_incarnation:
            return  # its shardd is not welcome (yet); the stage's next heartbeat asks again
        if self._refused(peer, hello.node, refusal(hello, of.cluster.members.values())):
            return
        # One that was welcomed here obeys this very term; a stranger must have obeyed less.
        known = self._known_stage(hello.node) == hello.incarnation
        if hello.term > of.cluster.term or (hello.term == of.cluster.term and not known):
            of.raise_term(hello.term + 1)
        of.say(peer, msg.Welcome(of.cluster.term, of.cluster.rules.cluster))
        of.happened(hello)

    def _draft_hello(self, peer: bytes, hello: msg.DraftHello) -> None:
        of = self._of
        if self._known_node(hello.node) != hello.node_incarnation:
            return  # as above; its next heartbeat asks again
        if self._refused(peer, hello.node, refusal(hello, of.cluster.members.values())):
            return
        if hello.term > of.cluster.term:
            of.raise_term(hello.term + 1)
        of.say(peer, msg.Welcome(of.cluster.term, of.cluster.rules.cluster))
        of.drafting.hello(hello)

    def _heartbeat(self, peer: bytes, beat: msg.Heartbeat) -> None:
        of, now = self._of, time.monotonic()
        of.say(peer, msg.HeartbeatAck(beat.clock, now))
        of.happened(beat)
        if self._known_stage(beat.node) != beat.incarnation:
            of.say(peer, msg.Identify(of.cluster.term))
            return
        stage = of.cluster.slot_of(beat.node)
        if beat.microbatch and stage is not None:
            of.scheduler.progress(beat.microbatch, stage, now)

    def _inventory(self, report: msg.KvReport) -> None:
        """What a stage holds: it is asked whenever the pipeline comes up, or lacks something."""
        stage = self._of.cluster.slot_of(report.node)
        try:
            held = {_sequence(entry): _tokens(entry) for entry in report.sequences}
        except (KeyError, TypeError, ValueError):
            log.warning("dropped a report of %s: not sequences", report.node)
            return
        if stage is not None:
            self._of.perform(self._of.scheduler.held(stage, held, time.monotonic()))


def _sequence(entry: dict[str, Any]) -> bytes:
    sequence = bytes.fromhex(entry["sequence"])
    if len(sequence) != SEQUENCE_ID_BYTES:
        raise ValueError("not a sequence id")
    return sequence


def _tokens(entry: dict[str, Any]) -> int:
    tokens = entry["tokens"]
    if type(tokens) is not int or tokens < 0:
        raise ValueError("not a number of tokens")
    return tokens
