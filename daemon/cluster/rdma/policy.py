"""Who decides about RDMA: one group over the pipeline's nodes, and the path of each of its hops.

    offers of all nodes → a group over those that can → all have joined → each hop is probed → it
    uses the group. Any member lost → every hop to ZeroMQ, the group is ended, another is started
    after a pause, while the machines' budgets last.

`step(event, now)` returns what is to be done; nothing here reads a clock or a socket. No message is
trusted to arrive: what is wanted is compared with what the nodes last said. A group that a
coordinator before this one has left is adopted when all of it stands, and else ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from daemon import messages as msg
from daemon.cluster.events import GroupLost, Note
from daemon.cluster.rdma.attempts import BLAMELESS, Attempts
from daemon.cluster.rdma.events import (
    Action,
    CablesAre,
    ClusterIs,
    Event,
    FindCables,
    GroupOver,
    PolicyIs,
    Remember,
    TestWanted,
)
from daemon.cluster.rdma.group import Group, Phase
from daemon.cluster.rdma.leftovers import Leftovers
from daemon.cluster.rdma.next_group import newcomers, next_group
from daemon.cluster.rdma.offers import Offers, hops
from daemon.cluster.rdma.rules import RdmaRules
from daemon.cluster.rdma.trials import Trials
from daemon.cluster.rdma.tryout import Need, Tryout
from daemon.cluster.rdma.wishes import Wishes
from daemon.cluster.wish import NOT_ENABLED, Wish
from daemon.hop_path import HopPath


class Rdma:
    """`memory` is what a coordinator before this one was to remember."""

    def __init__(self, rules: RdmaRules, term: int, memory: Remember | None = None) -> None:
        self.enabled = bool(memory and memory.enabled)
        self.group: Group | None = None
        self.offers = Offers()
        self.attempts = Attempts(rules)
        self.waits = "waiting for the nodes"  # why there is no group, when there is none
        self._rules = rules
        self._term = term
        self._pipeline: tuple[str, ...] = ()
        self._since = float("-inf")  # when the pipeline came to have these nodes
        self._now = 0.0
        self._present: Mapping[str, str] = {}
        self._idle = False
        self._soon = True  # a group may be begun without anything else happening
        self._last = 0  # number of the last group
        numbers = count(1)
        self.trials = Trials(rules, term, numbers)
        self._tryout = Tryout(rules, term, numbers)
        self._leftovers = Leftovers(rules)
        self._wishes = Wishes()
        if memory:
            self.attempts.restore(memory.failures, memory.quarantine, memory.why)

    @property
    def settled(self) -> bool:
        """Whether every hop has what it gets, unless something happens."""
        if self.group is None:
            return not (self.enabled and self._soon and len(self._pipeline) > 1)
        if self.group.phase is not Phase.STANDING or self.trials.deciding:
            return False
        # A stage connects as soon as the group stands, if it does at all.
        return not self.group.deaf or self._now - self.group.begun_at > self._rules.join_within

    @property
    def wishes(self) -> list[Wish]:
        """Of every hop of the pipeline, in its order."""
        return self._wishes.of(self._pipeline)

    def knows(self, offer: msg.RdmaOffer) -> bool:
        """Whether it comes from a shardd that is there, as far as ClusterIs has told."""
        return self._present.get(offer.node) == offer.incarnation

    # --- events ---

    def step(self, event: Event, now: float) -> list[Action]:
        self._now = now
        actions: list[Action] = []
        match event:
            case PolicyIs():
                self.enabled = event.enabled
                self.trials.careful = False
                self.attempts.at_once()
                self._soon = True
                actions.append(self._remember())
            case ClusterIs():
                self._seen(event, now)
            case msg.RdmaOffer() if self.knows(event):
                self.offers.hear(event)
                if self.group is None and event.ended == self._last:
                    why = f"{event.node}: {event.detail}"
                    if self.attempts.learn(event.reason, why, now):
                        actions.append(self._remember())
                if self.attempts.release(event):
                    actions.append(self._remember())
            case msg.RdmaJoined():
                if self.group and self.group.said_by_member(event):
                    self.group.joined(event)
            case msg.RdmaProbed():
                if self.group and self.group.said_by_member(event):
                    self.trials.answered(event, now)
                    self._tryout.answered(event, now)
            case msg.RdmaBeat():
                if self.group and self.group.said_by_member(event):
                    self.group.connected[event.node] = event.stage
            case GroupLost(number, reason, why):
                if self.group and number == self.group.number:
                    actions += self._over(self.group, reason, why, now)
            case CablesAre():
                actions += self._cables(event, now)
            case TestWanted():
                actions += self._tryout.want(event, now)
        return actions + self._advance(now)

    def _seen(self, cluster: ClusterIs, now: float) -> None:
        self.offers.keep_only(cluster.incarnations)
        self._present, self._idle = cluster.incarnations, cluster.idle
        if cluster.pipeline != self._pipeline:
            self._pipeline, self._since, self._soon = cluster.pipeline, now, True
            self._wishes.forget()

    def _cables(self, found: CablesAre, now: float) -> list[Action]:
        group = self.group
        if group is None or group.number != found.group or group.phase is not Phase.CABLES:
            return []
        if found.why:  # nothing was started: that costs no machine anything
            self.attempts.not_cabled(found.why, now)
            return self._over(group, "lost", found.why, now)
        group.cabled(found, now)
        return []

    # --- what follows ---

    def _advance(self, now: float) -> list[Action]:
        actions = self._look_at_group(now)
        actions += self._look_at_leftovers(now)
        actions += self._try_out(now)
        if self.group is None and self._tryout.hop is None:
            actions += self._begin(now)
        if self.group:
            actions += self._go_on(self.group, now)
        return actions + self._wish(now)

    def _look_at_group(self, now: float) -> list[Action]:
        """Whether it is over, or is to be."""
        group, rules = self.group, self._rules
        if group is None:
            return []
        reason, why = group.trouble(self.offers, self._present, rules, now)
        if reason:
            return self._over(group, reason, why, now)
        if late := self.trials.silent(now) or self._tryout.trials.silent(now):
            text = f"{late} did not answer a probe within {rules.probe_within:.0f} s"
            return self._over(group, "silent", text, now)
        if group.phase is Phase.LEAVING:
            return self._over(group, "asked", group.why, now) if now >= group.leave_at else []
        if not self.enabled and not group.trial:
            return self._leave(group, NOT_ENABLED, now)
        if not self._idle:
            return []
        if fresh := newcomers(group, self._pipeline, self.offers, self.attempts):
            return self._leave(group, f"it is made anew with {', '.join(fresh)}", now)
        return []

    def _leave(self, group: Group, why: str, now: float) -> list[Action]:
        """End it as planned: its hops turn to ZeroMQ first."""
        if group.phase is not Phase.STANDING:
            return self._over(group, "asked", why, now)
        group.phase, group.why = Phase.LEAVING, why
        group.leave_at = now + self._rules.leave_within
        return []

    def _over(self, group: Group, reason: str, why: str, now: float) -> list[Action]:
        """It has ended, or is ended now."""
        self.group = None
        self._last = group.number
        lasted = now - group.used_at if group.proven and group.used_at else None
        self.attempts.ended(self.offers.machines(group.members), lasted, reason, why, now)
        self.trials.careful |= group.proven and reason not in BLAMELESS
        self.trials.forget()
        self._soon = True
        self.waits = why if reason != "asked" else "the next group is about to be started"
        actions: list[Action] = [GroupOver(group.number, reason, why)]
        started = [node for node in group.members if node in group.asked_at or group.adopted]
        actions += self._leftovers.stop(self._term, group.number, started, why, now)
        if started:
            actions.append(Note("rdma", "", f"group {group.number} is over: {why}"))
        if group.trial:
            actions += self._tryout.failed(why, group.backend)
        return [*actions, self._remember()] if reason not in BLAMELESS else actions

    def _look_at_leftovers(self, now: float) -> list[Action]:
        """Processes of other groups: adopted, where they are a whole group, else ended."""
        mine = self.group.number if self.group else 0
        may_adopt = self.enabled and self.group is None
        found, stops = self._leftovers.look(
            self._term, self.offers, mine, self._last, may_adopt, now
        )
        if found:
            self.group = found
            self._last = found.number
        return list(stops)

    def _begin(self, now: float) -> list[Action]:
        """Start a group over the pipeline's nodes, when one may be."""
        self._soon, self.waits = False, NOT_ENABLED
        if not self.enabled or len(self._pipeline) < 2:
            return []
        gathering = now - self._since < self._rules.gather_within
        found = next_group(self._pipeline, self.offers, self.attempts, gathering, now)
        self._soon, self.waits = found.soon, found.why
        return self._start(found.members, False, now) if found.members else []

    def _start(self, members: tuple[str, ...], trial: bool, now: float) -> list[Action]:
        if busy := self._leftovers.busy(self.offers, members):
            self._soon, self.waits = True, f"{busy} has not ended the last group yet"
            return []
        self._last = max(self._last, self.offers.highest) + 1
        group = self.group = Group.of(self._last, members, self.offers, trial, now)
        text = f"group {self._last} of {', '.join(members)} by {group.backend}"
        note = Note("rdma", "", text + (", for a test" if trial else ""))
        cables = group.phase is Phase.CABLES
        return [note, FindCables(self._last, members)] if cables else [note]

    def _go_on(self, group: Group, now: float) -> list[Action]:
        if group.phase is Phase.STARTING:
            starts = group.start(self._term, self.offers, self._rules, now)
            self._leftovers.started(group, starts)
            return list(starts)
        if group.phase is not Phase.STANDING or group.trial:
            return []
        reached = [hop for hop in hops(self._pipeline) if group.reaches(*hop)]
        return list(self.trials.go_on(group, reached, now))

    def _try_out(self, now: float) -> list[Action]:
        """What the test needs next."""
        hop = self._tryout.hop
        actions, need = self._tryout.go_on(self.group, self.offers, self.attempts, now)
        if need is Need.GROUP and hop:
            actions += self._start(hop, True, now)
        if need is Need.END and self.group and self.group.trial:
            actions += self._over(self.group, "asked", "the test has ended", now)
        return actions

    # --- what the hops are told ---

    def _wish(self, now: float) -> list[Action]:
        group = self.group
        fresh = self._wishes.renew(
            self._pipeline, group, self.offers, self.trials, self.waits, self.enabled
        )
        if group and group.used_at is None and any(one.path is HopPath.RDMA for one in fresh):
            group.used_at = now
        actions: list[Action] = [*fresh]
        if group and group.used_at and not group.proven and not self.trials.deciding:
            group.proven = True
            self.attempts.succeeded()
            actions.append(self._remember())
        return actions

    def _remember(self) -> Remember:
        return self.attempts.remember(self.enabled)

    def check_integrity(self) -> None:
        self.offers.check_integrity()
        self.attempts.check_integrity()
        self.trials.check_integrity()
        self._tryout.trials.check_integrity()
        if self.group:
            self.group.check_integrity()
            assert self.group.number == self._last, "another group came after this one"
        self._wishes.check_integrity(self.group, self.enabled)
