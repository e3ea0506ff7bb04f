"""A stage's part in a rebalance (daemon.messages.moving): what it prepares, gives and was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import zmq

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.layers import LayerRange
from daemon.service import settle
from daemon.stage.background import Done
from daemon.stage.giving import Giving, Taker
from daemon.stage.mailbox import Mailbox
from daemon.stage.pieces import PieceError, PieceSender
from daemon.stage.place import Place
from daemon.stage.preparing import Preparation
from daemon.stage.worker import Worker
from transports.errors import AddressError
from transports.frame import Frame

log = logs.get("moving")

REPORT_SECONDS = 0.25
FULL_MS = 2  # until a taker that had no room is tried again
IDLE_MS = 250  # until it is looked whether there is something to give, if no frame comes
NOTHING = (0, 0)


class Moving:
    """At most one move at a time; a later one takes its place. What a method returns are frames
    that came for the new place before it was taken.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        config: Config,
        incarnation: str,
        place: Place,
        poller: zmq.Poller,
        say: Callable[[msg.Message], object],
    ) -> None:
        self.reports: Mailbox[Done] = Mailbox()
        self._context = context
        self._config = config
        self._node, self._incarnation = config.node.name, incarnation
        self._place = place
        self._poller = poller
        self._say = say
        self.move = NOTHING  # term and number of the one that something is held for
        self._coming: Preparation | None = None
        self._giving: Giving | None = None
        self._report_at = 0.0
        self._pause_ms = 0
        self._switch: msg.Switch | None = None
        self._barrier = NOTHING  # term and epoch of the newest that has passed
        self._former: tuple[Worker, msg.Loaded] | None = None
        poller.register(self.reports.fd, zmq.POLLIN)

    @property
    def loading(self) -> tuple[int, int] | None:
        """Bytes of weights, of how many; None when none are being loaded."""
        return self._coming.loading if self._coming else None

    @property
    def pollable(self) -> object:
        """Where pieces of KV come in; None where none are awaited."""
        taking = self._coming.taking if self._coming else None
        return taking.pollable if taking else None

    # --- what the coordinator asks for ---

    def prepare(self, asked: msg.Prepare) -> None:
        if not self._begin(asked.term, asked.move):
            return
        if self._coming is not None:
            self._coming.again()
            return
        self._coming = Preparation(
            asked,
            self._context,
            self._config,
            self._incarnation,
            self._place,
            self.reports,
            self._say,
        )

    def give(self, asked: msg.Give) -> None:
        worker = self._place.worker
        if not self._begin(asked.term, asked.move) or self._giving or worker is None:
            return
        try:
            takers = [self._taker(one, worker) for one in asked.takers]
        except (AddressError, KeyError, TypeError, ValueError) as error:
            self._cannot_give(f"KV cannot be sent to {asked.takers!r:.200}: {error}")
            return
        self._giving, self._report_at, self._pause_ms = Giving(worker, takers), 0.0, 0

    def switch(self, asked: msg.Switch) -> list[Frame]:
        if not self._begin(asked.term, asked.move):
            return []
        if self._place.number == (asked.term, asked.epoch):  # it was asked for once more
            if self._place.held:
                self._say(self._place.held)
            self._say(msg.Assigned(self._node, self._incarnation, asked.epoch))
            return []
        self._switch = asked
        return self._try_switch()

    def settle(self, asked: msg.Settle) -> None:
        if (asked.term, asked.move) >= self.move:
            self.reset()

    def reclaim(self, layers: LayerRange) -> None:
        """The coordinator assigns these layers, which are not those that are held: go back to what
        was held before the switch, with all its KV, or take what was prepared, without any.
        """
        coming = self._coming
        if self._former and self._former[0].stage.layers == layers:
            former, self._former = self._former, None
            self._place.hold(*former)
        elif coming and coming.ready and coming.ready.stage.layers == layers:
            self._take_over(coming, with_kv=False)

    # --- what happens ---

    def loaded(self) -> None:
        """A load in the background has ended."""
        done = self.reports.take()
        coming = self._coming
        if coming is None or done.asked is not coming.asked:
            if done.ready:
                done.ready.stage.discard()
            return
        coming.loaded(done)
        if coming.taking:
            self._poller.register(coming.taking.pollable, zmq.POLLIN)

    def piece(self) -> list[Frame]:
        """KV has come in."""
        if self._coming:
            self._coming.piece()
        return self._try_switch()

    def step(self) -> list[Frame]:
        """Give one more piece; when the barrier has passed and that was all, switch if that can
        be.
        """
        giving = self._gives
        if giving is None:
            return []
        try:
            sent = giving.step()
        except PieceError as error:
            self._cannot_give(str(error))
            return []
        self._pause_ms = IDLE_MS if sent is None else 0 if sent else FULL_MS
        if self._gives is None:  # said before it switches: then the move may be over
            self._report(giving.sent_bytes, 0, "")
            return self._try_switch()
        if (now := time.monotonic()) >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            self._report(giving.sent_bytes, giving.left_bytes, "")
        return []

    def pause(self, most_ms: int) -> int:
        """After how many milliseconds there is something to give again, at most so many."""
        return min(most_ms, self._pause_ms) if self._gives else most_ms

    def passed_barrier(self, term: int, epoch: int) -> list[Frame]:
        """The last frame of this epoch was sent on."""
        self._barrier = term, epoch
        if self._giving:
            self._giving.end()
        return self.step() if self._gives else self._try_switch()

    def went_on(self) -> None:
        """A frame was computed in the present place: there is no way back."""
        if self._former:
            self._former[0].stage.discard()
            self._former = None

    def reset(self) -> None:
        """Let go of everything that the present place does not need."""
        if self.move == NOTHING:
            return
        self._close(wait=False)
        self._coming = self._giving = self._switch = None
        self.move = NOTHING
        if self._place.worker is None:
            self._place.unload()  # its ring was opened for what was to come
        else:
            settle()
        mx.clear_cache()

    def close(self) -> None:
        self._close(wait=True)

    # --- within ---

    @property
    def _gives(self) -> Giving | None:
        """While there is something left to give, or may be."""
        return self._giving if self._giving and not self._giving.finished else None

    def _close(self, wait: bool) -> None:
        if self._giving:
            self._giving.close()
        if self._coming:
            if self.pollable:
                self._poller.unregister(self.pollable)
            self._coming.close(wait)
        self.went_on()

    def _begin(self, term: int, move: int) -> bool:
        """False for a message about an earlier move."""
        if (term, move) > self.move:
            self.reset()
            self.move = term, move
        return (term, move) == self.move

    def _try_switch(self) -> list[Frame]:
        asked, place, coming = self._switch, self._place, self._coming
        if asked is None or (asked.barrier and self._barrier != place.number):
            return []
        if self._gives:
            return []
        if coming:
            if not coming.complete(asked.givers):
                return []
            self._take_over(coming, with_kv=True)
        if place.layers is None:
            return []
        self._switch = None
        where = (asked.stage, asked.next_address, asked.chunk_tokens)
        layers = (place.layers.start, place.layers.end)
        return place.assign(msg.Assign(asked.term, asked.epoch, *where, *layers))

    def _take_over(self, coming: Preparation, with_kv: bool) -> None:
        """What was held stays until a frame is computed, and is discarded then: it would not go by
        itself, its modules refer to each other.
        """
        if self._place.worker and self._place.held:
            self._former = self._place.worker, self._place.held
        coming.take_over(with_kv)

    def _taker(self, told: dict[str, Any], worker: Worker) -> Taker:
        layers = LayerRange(int(told["start"]), int(told["end"]))
        own = worker.stage.layers
        if not own.start <= layers.start < layers.end <= own.end:
            raise ValueError(f"layers {layers} are not held here")
        networks = self._config.security.plain_networks
        to = (str(told["address"]), networks, self.move, self._node)
        return Taker(PieceSender(self._context, *to), layers)

    def _report(self, sent: int, left: int, why: str) -> None:
        self._say(msg.Giving(self._node, self._incarnation, *self.move, sent, left, why))

    def _cannot_give(self, why: str) -> None:
        log.error("KV cannot be given: %s", why)
        if self._giving:
            self._giving.close()
            self._giving = None
        self._report(0, 0, why)
