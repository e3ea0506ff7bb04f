"""The hops of the group that stands: each is tried before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon import messages as msg
from daemon.cluster.rdma.events import ToProcess
from daemon.cluster.rdma.group import Group
from daemon.cluster.rdma.rules import RdmaRules
from daemon.cluster.rdma.trial import Trial

Hop = tuple[str, str]


class Trials:
    """Of one group. `careful`: a hop was lost before, so that one good probe is not enough.
    `numbers` are those for probes.
    """

    def __init__(self, rules: RdmaRules, term: int, numbers: Iterator[int]) -> None:
        self.careful = False
        self._rules = rules
        self._term = term
        self._numbers = numbers
        self._of: dict[Hop, Trial] = {}

    def __getitem__(self, hop: Hop) -> Trial | None:
        return self._of.get(hop)

    @property
    def deciding(self) -> bool:
        """Whether there is a hop of which it is not known yet whether it is good."""
        return any(not trial.passed and not trial.why for trial in self._of.values())

    def forget(self) -> None:
        """The group is over."""
        self._of.clear()

    def go_on(self, group: Group, hops: Iterable[Hop], now: float) -> list[ToProcess]:
        """Probe what is due of these hops, which the group reaches. Others are forgotten."""
        needed = self._rules.good_to_return if self.careful else 1
        self._of = {hop: self._of.get(hop) or Trial(*hop, needed) for hop in hops}
        actions = []
        for trial in self._of.values():
            if trial.probe:
                if now - trial.asked_at < self._rules.ask_again_after:
                    continue
                trial.asked_at = now
            elif trial.passed or now < trial.next_at:
                continue
            else:
                trial.begin(next(self._numbers), now)
            actions.append(self._ask(group, trial))
        return actions

    def answered(self, said: msg.RdmaProbed, now: float) -> None:
        """An answer to a probe that is under way; others came too late, or twice."""
        for trial in self._of.values():
            if trial.probe == said.probe and trial.sender == said.node:
                rtt, rate = said.round_trip_seconds, said.bytes_per_second
                trial.ended(rtt, rate, said.why, self._rules, now)

    def silent(self, now: float) -> str:
        """Who has not answered a probe in time; "" when nobody."""
        limit = self._rules.probe_within
        late = (t for t in self._of.values() if t.probe and now - t.begun_at > limit)
        return next((trial.sender for trial in late), "")

    def check_integrity(self) -> None:
        for hop, trial in self._of.items():
            assert hop == (trial.sender, trial.receiver)
            trial.check_integrity()
        under_way = [trial.probe for trial in self._of.values() if trial.probe]
        assert len(set(under_way)) == len(under_way), "two probes of one number"

    def _ask(self, group: Group, trial: Trial) -> ToProcess:
        peer = group.rank(trial.receiver)
        assert peer is not None
        probe = msg.RdmaProbe(self._term, group.number, trial.probe, peer)
        return ToProcess(trial.sender, group.shardds[trial.sender], group.number, probe)
