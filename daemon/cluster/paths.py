"""Which path frames take on each hop from stage to stage, and what is lost when one ends.

Who decides says what it wishes; here it is asked for, again and again, until the sending stage has
said that it is so. Frames may be on the way by RDMA from the moment that a stage is asked to take
it until it has said that it has left it. A group that ends takes all its hops along: they go back
to ZeroMQ, and whatever is in flight is issued again, at the first word of it, and once more at the
word of each sender that had not left by then: what it sent meanwhile may be lost too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from daemon import messages as msg
from daemon.cluster.events import Action, FramesLost, GroupLost, Note, PathChanged, Slot, ToStage
from daemon.cluster.rules import Rules
from daemon.cluster.wish import Wish
from daemon.hop_path import HopPath, PathLoss


@dataclass(slots=True)
class Hop:
    """From one stage to the next. `path` is what its sender last said, `refusal` why that is not
    what was asked for. `group`: frames may be on their way by it, 0: by none. `asked` and `turn`
    are of the newest TakePath in this layout.
    """

    sender: str
    receiver: str
    wish: Wish = field(init=False)
    fallbacks: Counter[str] = field(default_factory=Counter)
    path: HopPath = HopPath.ZMQ
    refusal: str = ""
    group: int = 0
    asked: Wish = field(init=False)
    turn: int = 0
    answered: bool = True
    asked_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.wish = self.asked = Wish(self.sender)

    @property
    def why_not(self) -> str:
        """Why frames do not go by RDMA; "" when they do."""
        return "" if self.path is HopPath.RDMA else self.wish.why or self.refusal or "not yet"


class Paths:
    """`hops` are those of the layout that is up, or was last."""

    def __init__(self, rules: Rules) -> None:
        self.hops: tuple[Hop, ...] = ()
        self._rules = rules
        self._layout = (0, 0)
        self._turn = 0
        self._over: set[int] = set()  # groups of this term that have ended

    def of(self, sender: str) -> Hop | None:
        return next((hop for hop in self.hops if hop.sender == sender), None)

    def new_term(self) -> None:
        """Groups and turns are counted anew; whatever was wished is to be wished again."""
        self._over.clear()
        self._turn = 0
        for hop in self.hops:
            hop.wish, hop.group, hop.turn = Wish(hop.sender), 0, 0
            hop.path = HopPath.ZMQ

    # --- what is wished ---

    def wish(self, wish: Wish) -> None:
        """It is asked for with the next `advance`."""
        hop = self.of(wish.sender)
        if hop is not None and not (wish.path is HopPath.RDMA and wish.group in self._over):
            hop.wish = wish

    def advance(self, term: int, epoch: int, slots: Sequence[Slot], now: float) -> list[Action]:
        """The pipeline is up in this layout: ask for what is wished and not so."""
        if (term, epoch) != self._layout:
            self._configure(term, epoch, slots)
        actions: list[Action] = []
        for hop in self.hops:
            actions += self._ask(hop, now)
        return actions

    # --- what is heard: of stages that are known to be there ---

    def taken(self, event: msg.PathTaken, now: float) -> list[Action]:
        hop = self.of(event.node)
        if hop is None or (event.epoch, event.turn) != (self._layout[1], hop.turn):
            return []  # of another layout, or overtaken by another wish
        path, refused = HopPath(event.path), bool(event.why) and event.why != hop.refusal
        hop.answered, hop.refusal = True, event.why
        actions = self._now_by(hop, path)
        if refused and hop.asked.path is not path:
            actions.append(Note("path", hop.sender, f"to {hop.receiver} not by RDMA: {event.why}"))
        return actions

    def lost(self, event: msg.PathLost, now: float) -> list[Action]:
        actions = self.group_over(event.group, event.reason, f"{event.node}: {event.why}", now)
        hop = self.of(event.node)
        if event.sending and hop is not None and hop.group == event.group:
            actions += self._now_by(hop, HopPath.ZMQ)
        return _once(actions)

    def beat(self, beat: msg.Heartbeat, now: float) -> list[Action]:
        """The word that it has lost RDMA may be lost as well."""
        hop = self.of(beat.node)
        if hop is None or not hop.answered or hop.path is HopPath.ZMQ:
            return []
        same = (beat.epoch, beat.turn) == (self._layout[1], hop.turn)
        if not same or beat.path == HopPath.RDMA:
            return []
        why = "it has gone back to ZeroMQ"
        at = (beat.node, beat.incarnation, beat.epoch, hop.group)
        return self.lost(msg.PathLost(*at, True, PathLoss.GONE.value, why), now)

    @property
    def group(self) -> int:
        """By which frames may be on their way; 0: by none."""
        return next((hop.group for hop in self.hops if hop.group), 0)

    def group_over(self, group: int, reason: str, why: str, now: float) -> list[Action]:
        """A member of it is lost, and so it is over for all: `reason` is counted."""
        if group <= 0 or group in self._over:
            return []
        self._over.add(group)
        carrying = [hop for hop in self.hops if hop.group == group]
        for hop in self.hops:
            if hop.wish.group == group:
                hop.wish = Wish(hop.sender, why=why)
        for hop in carrying:
            hop.fallbacks[reason] += 1
        over = GroupLost(group, reason, why)
        if not carrying:
            return [over]
        actions: list[Action] = [over, Note("path-lost", "", f"group {group} {reason}: {why}")]
        for hop in carrying:
            actions += self._ask(hop, now)
        return [*actions, FramesLost(why)]

    def check_integrity(self) -> None:
        assert len({hop.sender for hop in self.hops}) == len(self.hops), "paths: a sender twice"
        for hop in self.hops:
            assert hop.path is HopPath.ZMQ or hop.group, "paths: by RDMA of no group"
            assert hop.turn <= self._turn, "paths: a turn that nobody asked for"
            assert hop.wish.group not in self._over or not hop.wish.group, "paths: of a dead group"

    # --- rules ---

    def _configure(self, term: int, epoch: int, slots: Sequence[Slot]) -> None:
        """Every stage begins with ZeroMQ. What was wished for two neighbours is wished on."""
        self._layout = (term, epoch)
        before = {(hop.sender, hop.receiver): hop for hop in self.hops}
        hops = []
        for one, other in pairwise(slots):
            fresh = Hop(one.node, other.node)
            if known := before.get((one.node, other.node)):
                fresh.wish, fresh.fallbacks = known.wish, known.fallbacks
            hops.append(fresh)
        self.hops = tuple(hops)

    def _ask(self, hop: Hop, now: float) -> list[Action]:
        wish = hop.wish
        lately = now - hop.asked_at < self._rules.ask_again_after
        if hop.asked.way == wish.way and (lately or (hop.answered and hop.path is wish.path)):
            return []
        if hop.asked.way != wish.way or hop.answered:  # it answers a turn only once in another way
            self._turn += 1
            hop.turn, hop.asked, hop.answered = self._turn, wish, False
        hop.asked_at = now
        hop.group = wish.group or hop.group
        group = wish.group or (0 if hop.group in self._over else hop.group)
        term, epoch = self._layout
        ask = msg.TakePath(term, epoch, hop.turn, wish.path.value, group, wish.rank)
        return [ToStage(hop.sender, ask)]

    def _now_by(self, hop: Hop, path: HopPath) -> list[Action]:
        """As its sender says."""
        actions: list[Action] = []
        if path is not hop.path:
            hop.path = path
            actions.append(PathChanged(self.hops.index(hop), path))
            because = f": {hop.wish.why}" if path is HopPath.ZMQ and hop.wish.why else ""
            text = f"to {hop.receiver} by {path.value}{because}"
            actions.append(Note("path", hop.sender, text))
        if path is HopPath.ZMQ:
            left, hop.group = hop.group, 0
            if left in self._over:
                actions.append(FramesLost(f"{hop.sender} has left group {left}, which is over"))
        return actions


def _once(actions: list[Action]) -> list[Action]:
    """Both are said of the same frames: issue them again once."""
    lost = [action for action in actions if isinstance(action, FramesLost)]
    return [*(a for a in actions if not isinstance(a, FramesLost)), *lost[:1]]
