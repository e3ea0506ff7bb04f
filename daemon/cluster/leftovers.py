"""What stages hold that nothing needs any more: they are asked to let go of it, until they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from daemon import messages as msg
from daemon.cluster.events import Action, ToStage
from daemon.cluster.member import Member
from daemon.cluster.rules import Rules


class Leftovers:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._dismissed: set[str] = set()

    def dismiss(self, term: int, members: Iterable[Member], now: float) -> list[Action]:
        """These have no place in the layout any more, and are to have none soon."""
        actions: list[Action] = []
        for member in members:
            self._dismissed.add(member.name)
            actions.append(_unload(term, member, now))
        return actions

    def keep(self, nodes: Iterable[str]) -> None:
        """These are to have a place."""
        self._dismissed.difference_update(nodes)

    def advance(self, term: int, members: Mapping[str, Member], now: float) -> list[Action]:
        """Those that were dismissed and hold something are asked again."""
        found = [members[name] for name in sorted(self._dismissed) if name in members]
        self._dismissed = {m.name for m in found if m.stage and not _known_empty(m)}
        return self.unload(term, found, now)

    def unload(self, term: int, members: Iterable[Member], now: float) -> list[Action]:
        """Ask every one of these that holds or loads something, if it was not asked just now."""
        return [
            _unload(term, member, now)
            for member in members
            if member.stage
            and (member.loaded or member.asked or _at_work(member))
            and now - member.asked_at >= self._rules.ask_again_after
        ]

    def settle(self, term: int, move: int, members: Iterable[Member], now: float) -> list[Action]:
        """That rebalance is over: only what the present place needs is to be held."""
        actions: list[Action] = []
        for member in members:
            member.settled()
            member.settled_at = now
            if member.stage:
                actions.append(ToStage(member.name, msg.Settle(term, move)))
        return actions

    def heard(self, term: int, member: Member, beat: msg.Heartbeat, now: float) -> list[Action]:
        """While no rebalance is under way. That beat may be older than its Settle."""
        if not beat.move or now - member.settled_at < self._rules.ask_again_after:
            return []
        return self.settle(term, beat.move, [member], now)


def _at_work(member: Member) -> bool:
    beat = member.beat
    return beat is not None and (beat.loading or bool(beat.digest))


def _known_empty(member: Member) -> bool:
    return member.loaded is None and member.beat_at > member.asked_at and not _at_work(member)


def _unload(term: int, member: Member, now: float) -> ToStage:
    member.loaded = member.asked = None
    member.asked_at = now
    return ToStage(member.name, msg.Unload(term))
