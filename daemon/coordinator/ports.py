"""The Thunderbolt ports of all nodes: asked at once, waited for no longer than tools may take."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from daemon import logs
from daemon import messages as msg
from daemon.coordinator import views
from daemon.coordinator.answer import Answer
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.ports_view import group_view, ports_view
from daemon.coordinator.queries import Queries
from daemon.thunderbolt import report
from daemon.thunderbolt.facts import FactsError, Machine
from daemon.thunderbolt.run import SECONDS
from daemon.version import VERSION

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("ports")

MARGIN_SECONDS = 3.0  # for the end of a tool that hangs, and the way there and back
Machines = dict[str, Machine]
Ended = Callable[[Machines, list[str]], object]


class Ports:
    def __init__(self, coordinator: Coordinator, queries: Queries) -> None:
        self._of = coordinator
        self._queries = queries

    def ask(self, then: Ended, nodes: set[str] | None = None, fresh: bool = False) -> None:
        """`then` is given the machines of the nodes that answered, and the others' names. `nodes`
        None: all that there are.
        """
        self._ask(nodes, fresh, "", lambda machines, _, silent: then(machines, silent))

    def status(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """The verb rdma.status. All nodes are asked also for one: the ends of its cables."""
        node = typed(arguments, "node", str, None)
        known = self._of.cluster.members
        if node is not None and node not in known:
            raise BadArguments(f"no node {node!r}; known are {', '.join(sorted(known))}")

        def ended(machines: Machines, silent: list[str]) -> None:
            data = self._view(machines, silent)
            if node is not None:
                data["nodes"] = [one for one in data["nodes"] if one["node"] == node]
                data["silent"] = [one for one in silent if one == node]
            answer.reply(data)

        self.ask(ended)

    def facts(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """The verb rdma.ports: what is known, as it is now, for who makes something of it."""

        def ended(machines: Machines, silent: list[str]) -> None:
            told = {node: machine.to_wire() for node, machine in machines.items()}
            answer.reply({"machines": told, "silent": silent})

        self.ask(ended, fresh=True)

    def report(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """The verb rdma.report: what may be sent to people elsewhere."""
        salt = secrets.token_hex(16)

        def ended(machines: Machines, said: dict[str, dict[str, str]], silent: list[str]) -> None:
            view = self._view(machines, silent)
            answer.reply(report.document(self._versions(), machines, said, silent, view, salt))

        self._ask(None, True, salt, ended)

    def _view(self, machines: Machines, silent: list[str]) -> dict[str, Any]:
        of = self._of
        order = [slot.node for slot in of.cluster.slots] or sorted(of.cluster.members)
        hops = views.hops_view(of.cluster, of.scheduler.stats, of.scheduler.hops, time.monotonic())
        jaccl = group_view(order, machines)
        return {
            **ports_view(machines, silent),
            "jaccl": jaccl,
            "policy": of.rdma.view(),
            "hops": hops,
        }

    def _versions(self) -> dict[str, dict[str, str | None]]:
        """Of the programs, by node."""
        return {
            name: {
                "shardbus": member.node.version if member.node else VERSION,
                "python": member.node.python if member.node else None,
                "system": member.node.system if member.node else None,
                "mlx": member.stage.mlx if member.stage else None,
                "mlx_lm": member.stage.mlx_lm if member.stage else None,
            }
            for name, member in sorted(self._of.cluster.members.items())
        }

    def _ask(
        self,
        nodes: set[str] | None,
        fresh: bool,
        salt: str,
        then: Callable[[Machines, dict[str, dict[str, str]], list[str]], object],
    ) -> None:
        asked = set(self._of.cluster.members) if nodes is None else set(nodes)

        def ended(reports: list[msg.PortsReport], silent: list[str]) -> None:
            machines, said, lost = {}, {}, list(silent)
            for one in reports:
                try:
                    machines[one.node] = Machine.from_wire(one.facts)
                except FactsError as error:
                    log.warning("dropped what %s said of its ports: %s", one.node, error)
                    lost.append(one.node)
                    continue
                said[one.node] = one.outputs
            then(machines, said, sorted(lost))

        now = time.monotonic()
        seconds = (2 if fresh else 1) * SECONDS + MARGIN_SECONDS  # a look may be under way
        number = self._queries.ask(msg.PortsReport, asked, now, ended, seconds)
        for node in sorted(asked):
            if not self._of.to_node(node, msg.PortsQuery(number, fresh, salt)):
                self._queries.unreachable(number, node)
