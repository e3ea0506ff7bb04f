"""Layers that a stage is to have soon: loaded in the background, and their KV as it comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.stage.background import Background, Done
from daemon.stage.loading import Ready
from daemon.stage.mailbox import Mailbox
from daemon.stage.pieces import PieceError, PieceReceiver
from daemon.stage.place import Place
from daemon.stage.succession import Given, newcomer, successor
from daemon.stage.taking import Taking
from transports.errors import AddressError

log = logs.get("moving")
END_SECONDS = 5.0


class Preparation:
    """Of one move. The coordinator is answered through `say`, whatever comes of it."""

    def __init__(
        self,
        asked: msg.Prepare,
        context: zmq.Context[Any],
        config: Config,
        incarnation: str,
        place: Place,
        reports: Mailbox[Done],
        say: Callable[[msg.Message], object],
    ) -> None:
        self.asked = asked
        self.ready: Ready | None = None
        self.taking: Taking | None = None
        self._context = context
        self._config = config
        self._incarnation = incarnation
        self._place = place
        self._say = say
        self._background: Background | None = None
        self._answer: msg.Prepared | None = None
        worker = place.worker
        if worker is not None and worker.digest != asked.digest:
            self._failed("it holds another model", "unload that")
            return
        held, room, kv_bytes = None, 0, 0
        if worker is not None and place.held:
            held, kv_bytes = worker.stage, worker.kv_bytes
            room = place.held.memory_bytes - held.weights_bytes - kv_bytes
            kv_bytes = 0 if asked.spare else kv_bytes  # of no use for what is to come
        folder = place.folder(asked.model, asked.folder)
        self._background = Background(asked, folder, config.node, held, room, kv_bytes, reports)
        self._background.start()

    @property
    def loading(self) -> tuple[int, int] | None:
        """Bytes of weights, of how many; None when it has ended."""
        b = self._background
        return (b.bytes_loaded, b.bytes_total) if b else None

    def again(self) -> None:
        """It was asked for once more."""
        if self._answer:
            self._say(self._answer)

    def loaded(self, done: Done) -> None:
        """What the background load has come to."""
        self._background = None
        if done.ready is None:
            assert done.error
            self._failed(f"{done.error.path}: {done.error.cause}", done.error.remedy)
            return
        before, after = self._place.layers, done.ready.stage.layers
        goes_on = before is not None and not self.asked.spare
        own = range(before.start, before.end) if before and goes_on else range(0)
        gained = [n for n in range(after.start, after.end) if n not in own]
        node, networks = self._config.node, self._config.security.plain_networks
        try:
            self._place.open_ring(done.ready)
            if gained:
                move = self.asked.term, self.asked.move
                receiver = PieceReceiver(self._context, node.data_address, networks, move)
                room = self._kv_room(done.ready)
                self.taking = Taking(done.ready.stage, gained, receiver, room)
        except AddressError as error:
            done.ready.stage.discard()
            self._failed(str(error), error.hint)
            return
        self.ready = done.ready
        self._answered(done.ready.seconds, "", "")

    def piece(self) -> None:
        """KV has come in."""
        if self.taking is None:
            return
        try:
            self.taking.take()
        except PieceError as error:
            self._failed(str(error), "start the rebalance again")

    def complete(self, givers: int) -> bool:
        """Whether the layers, and the KV that so many stages give, are there."""
        if self.ready is None:
            return False
        return not givers or (self.taking is not None and self.taking.complete(givers))

    def take_over(self, with_kv: bool) -> None:
        """Compute with these layers from now on; without KV that is whole nothing is held."""
        place, ready = self._place, self.ready
        assert ready
        given: Given = self.taking.caches() if self.taking and with_kv else ()
        if place.worker is None or self.asked.spare:
            digest, hidden = self.asked.digest, ready.hidden
            new = newcomer(ready.stage, ready.coder, place.clock, digest, hidden, given)
        else:
            new = successor(place.worker, ready.stage, ready.coder, given)
        place.hold(new, place.told(ready, self.asked.digest))

    def close(self, wait: bool = False) -> None:
        """Let go of it, but for what was taken over."""
        if self._background:
            self._background.abandon()
            if wait:
                self._background.join(END_SECONDS)
        if self.taking:
            self.taking.close()
        if self.ready and not self._place.uses(self.ready.stage):
            self.ready.stage.discard()

    def _kv_room(self, ready: Ready) -> int:
        """Bytes that the KV that comes may take, as long as what is held is held too."""
        worker = self._place.worker
        if worker is None:
            return ready.kv_budget
        own, new = worker.stage.layers, ready.stage.layers
        more = [n for n in range(new.start, new.end) if not own.start <= n < own.end]
        weights = worker.stage.weights_bytes + sum(ready.stage.info.layer_bytes[n] for n in more)
        return ready.memory - weights - worker.kv_bytes

    def _failed(self, why: str, todo: str) -> None:
        log.error("layers are not prepared: %s", why)
        self._answered(0.0, why, todo)

    def _answered(self, seconds: float, why: str, todo: str) -> None:
        asked = self.asked
        self._answer = msg.Prepared(
            self._config.node.name,
            self._incarnation,
            asked.term,
            asked.move,
            asked.start,
            asked.end,
            self._place.data_address,
            self.taking.address if self.taking else "",
            seconds,
            why,
            todo,
        )
        self._say(self._answer)
