"""Machines, shardds and rdma processes around the policy, all of them simulated: messages take
time, get lost and come twice, processes die.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from daemon import messages as msg
from daemon.cluster.events import Note, ToNode
from daemon.cluster.rdma.events import (
    CablesAre,
    ClusterIs,
    Event,
    FindCables,
    GroupOver,
    PolicyIs,
    Remember,
    Tested,
    TestWanted,
    ToProcess,
)
from daemon.cluster.rdma.policy import Rdma
from daemon.cluster.rdma.rules import RdmaRules
from daemon.cluster.wish import Wish
from daemon.hop_path import HopPath

STEP = 0.25
RULES = RdmaRules()


@dataclass
class Machine:
    """A node: its shardd, and the rdma process that it may have."""

    name: str
    backends: list[str] = field(default_factory=lambda: ["ring"])
    devices: list[str] = field(default_factory=list)
    unplugged: list[str] = field(default_factory=list)
    boot: str = "boot-1"
    shardd: str = "s1"
    budget: int = 1000
    starts: int = 0
    why_not: str = ""
    running: msg.RdmaStart | None = None
    joined: bool = False
    began: float = 0.0
    ended: int = 0
    reason: str = ""
    detail: str = ""
    joins: bool = True  # whether a process that is started here finds the others
    answers: bool = True  # whether it answers probes
    connected: bool = True  # whether its stage is
    bad: str = ""  # what it answers to probes
    failure: str = "start"
    stubborn: bool = False  # its process does not end

    def offer(self) -> msg.RdmaOffer:
        run = self.running
        left = max(0, self.budget - self.starts)
        why = self.why_not or ("" if left else "no group start is left in this boot")
        return msg.RdmaOffer(
            self.name,
            self.shardd,
            self.boot,
            list(self.backends),
            f"{self.name}:{7000 + self.starts}",
            [] if self.unplugged else list(self.devices),
            list(self.unplugged),
            left,
            why,
            run.group if run else 0,
            run.backend if run else "",
            run.rank if run else 0,
            len(run.hosts) if run else 0,
            4711 if run else 0,
            self.ended,
            self.reason,
            self.detail,
        )


class World:
    """`loss` and `doubling` are shares of the messages between coordinator and nodes."""

    def __init__(
        self, names: str = "abc", seed: int = 0, loss: float = 0.0, doubling: float = 0.0
    ) -> None:
        self.rng = random.Random(seed)
        self.loss, self.doubling, self.slow = loss, doubling, 0.0
        self.now = 100.0
        self.machines = {name: Machine(name) for name in names}
        self.pipeline = tuple(names)
        self.told = self.pipeline  # as the policy knows it
        self.idle = False
        self.term = 1
        self.memory: Remember | None = None
        self.rdma = Rdma(RULES, self.term)
        self.paths: dict[str, Wish] = {}
        self.over: list[GroupOver] = []
        self.started: list[tuple[str, msg.RdmaStart]] = []
        self.stopped: list[tuple[str, msg.RdmaStop]] = []
        self.probes: list[ToProcess] = []
        self.notes: list[Note] = []
        self.tested: list[Tested] = []
        self.cables = CablesAre(0, (), "", "no cables")
        self._post: list[tuple[float, int, object]] = []
        self._posted = 0
        self._next_offers = 0.0

    # --- what the policy asks for ---

    def step(self, event: Event) -> None:
        actions = self.rdma.step(event, self.now)
        self.rdma.check_integrity()
        for action in actions:
            match action:
                case ToNode(node, message):
                    self._to_node(node, message)
                case ToProcess():
                    if isinstance(action.message, msg.RdmaProbe):
                        self.probes.append(action)
                    self._send(("process", action))
                case Wish():
                    self.paths[action.sender] = action
                case GroupOver():
                    self.over.append(action)
                case Remember():
                    self.memory = action
                case FindCables(group, _):
                    self._post.append(
                        (self.now, 0, ("coordinator", replace(self.cables, group=group)))
                    )
                case Tested():
                    self.tested.append(action)
                case Note():
                    self.notes.append(action)
        if any(isinstance(action, GroupOver) for action in actions):
            assert not self.on_rdma, "hops of a group that is over were left on it"

    def _to_node(self, node: str, message: msg.Message) -> None:
        if isinstance(message, msg.RdmaStart):
            self.started.append((node, message))
        elif isinstance(message, msg.RdmaStop):
            self.stopped.append((node, message))
        self._send(("node", node, message))

    # --- the network ---

    def _send(self, what: object) -> None:
        copies = 0 if self.rng.random() < self.loss else 1
        copies += self.rng.random() < self.doubling
        for _ in range(copies):
            self._posted += 1
            delay = 0.01 + self.rng.random() * self.slow
            self._post.append((self.now + delay, self._posted, what))

    def _say(self, message: Event) -> None:
        self._send(("coordinator", message))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.tick()

    def tick(self) -> None:
        self.now += STEP
        while due := [entry for entry in self._post if entry[0] <= self.now]:
            entry = min(due, key=lambda one: one[:2])
            self._post.remove(entry)
            self._arrive(entry[2])
        if self.now >= self._next_offers:
            self._next_offers = self.now + 2.0
            for machine in self.machines.values():
                self._say(machine.offer())
        self._processes()
        present = {m.name: m.shardd for m in self.machines.values()}
        self.told = self.pipeline
        self.step(ClusterIs(self.told, present, self.idle))

    def _arrive(self, what: object) -> None:
        match what:
            case ("coordinator", message):
                self.step(message)
            case ("node", node, message):
                self._shardd(self.machines[node], message)
            case ("process", ToProcess() as action):
                self._process(self.machines[action.node], action)

    # --- shardd and process ---

    def _shardd(self, m: Machine, message: msg.Message) -> None:
        match message:
            case msg.RdmaStart() if m.running and m.running.group == message.group:
                pass
            case msg.RdmaStart() if message.group <= m.ended or m.starts >= m.budget:
                pass
            case msg.RdmaStart():
                assert not m.running, "started before the last one has ended"
                m.running, m.joined, m.began = message, False, self.now
                m.starts += 1
            case msg.RdmaStop() if m.stubborn:
                pass
            case msg.RdmaStop():
                if m.running and m.running.group == message.group:
                    self._end(m, "asked", message.why)
                elif message.group > m.ended:
                    m.ended, m.reason, m.detail = message.group, "asked", message.why
        self._say(m.offer())

    def _end(self, m: Machine, reason: str, detail: str) -> None:
        assert m.running
        m.ended, m.reason, m.detail = m.running.group, reason, detail
        m.running, m.joined = None, False
        self._say(m.offer())

    def _processes(self) -> None:
        for m in self.machines.values():
            run = m.running
            if run is None:
                continue
            if m.joined:
                counts = (0, 0, 0, 0, {}, 0.0, 0.0)
                self._say(msg.RdmaBeat(m.name, m.shardd, run.group, run.rank, m.connected, *counts))
            mates = [o for o in self.machines.values() if o.running and self.same(o, run)]
            whole = len(mates) == len(run.hosts)
            if not m.joined and whole and all(mate.joins for mate in mates):
                m.joined = True
                self._say(self._joined(m, run))
            elif not m.joined and not m.joins and self.now - m.began > 1.0:
                self._end(m, m.failure, "errno 22")
            elif not m.joined and self.now - m.began > 30.0:
                self._end(m, "start", "nobody there")
            elif m.joined and not whole and not m.stubborn:
                self._end(m, "peer", "a neighbour is gone")

    def same(self, other: Machine, run: msg.RdmaStart) -> bool:
        return other.running is not None and other.running.group == run.group

    def _joined(self, m: Machine, run: msg.RdmaStart) -> msg.RdmaJoined:
        size = len(run.hosts)
        reach = sorted({(run.rank + 1) % size, (run.rank - 1) % size} - {run.rank})
        if size > 2 and run.backend == "ring":
            reach = [rank for rank in reach if abs(rank - run.rank) == 1]
        return msg.RdmaJoined(m.name, m.shardd, run.group, run.rank, reach, 4711, 0.1)

    def _process(self, m: Machine, action: ToProcess) -> None:
        run = m.running
        if run is None or run.group != action.group or m.shardd != action.incarnation:
            return
        match action.message:
            case msg.Identify() if m.joined:
                self._say(self._joined(m, run))
            case msg.RdmaProbe(_, group, probe, peer) if m.joined and m.answers:
                self._say(msg.RdmaProbed(m.name, m.shardd, group, probe, peer, 1e-4, 1e9, m.bad))

    # --- what tests do ---

    def kill(self, name: str, reason: str = "signal", detail: str = "signal SIGSEGV") -> None:
        if self.machines[name].running:
            self._end(self.machines[name], reason, detail)

    def enable(self, enabled: bool = True) -> None:
        self.step(PolicyIs(enabled))

    def test(self, a: str, b: str) -> None:
        self.step(TestWanted(a, b))

    def restart_coordinator(self) -> None:
        self.term += 1
        self._post = [entry for entry in self._post if entry[2][0] != "coordinator"]  # type: ignore[index]
        self.paths.clear()
        self.rdma = Rdma(RULES, self.term, self.memory)
        for machine in 2 * list(self.machines.values()):  # before it has seen who is there
            self.step(machine.offer())

    def restart_shardd(self, name: str) -> None:
        """With its children."""
        m = self.machines[name]
        number = int(m.shardd[1:]) + 1
        m.shardd, m.running, m.joined = f"s{number}", None, False
        m.ended, m.reason, m.detail = 0, "", ""

    def reboot(self, name: str) -> None:
        self.restart_shardd(name)
        m = self.machines[name]
        m.boot, m.starts, m.joins, m.answers, m.bad = m.boot + "x", 0, True, True, ""

    @property
    def on_rdma(self) -> str:
        """The nodes whose hops use RDMA, in pipeline order."""
        last = self.told[-1:]
        hops = [n for n in self.told if n not in last and n in self.paths]
        return "".join(n for n in hops if self.paths[n].path is HopPath.RDMA)

    def why(self, name: str) -> str:
        return self.paths[name].why

    def groups(self) -> list[int]:
        return sorted({start.group for _, start in self.started})
