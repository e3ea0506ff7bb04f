"""Questions that the nodes themselves must answer: their KV, their logs, their ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daemon import messages as msg

ANSWER_SECONDS = 3.0  # that nodes have to answer
Report = msg.KvReport | msg.LogsReport | msg.PortsReport


@dataclass(slots=True)
class Query:
    """`ended` is given the reports, and the nodes that were silent."""

    kind: type[Report]
    missing: set[str]
    due: float
    ended: Callable[[list[Any], list[str]], object]
    reports: list[Report] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


class Queries:
    def __init__(self) -> None:
        self._open: dict[int, Query] = {}
        self._last = 0

    def ask(
        self,
        kind: type[Report],
        nodes: set[str],
        now: float,
        ended: Callable[[list[Any], list[str]], object],
        seconds: float = ANSWER_SECONDS,
    ) -> int:
        """Open a query to these nodes; its number goes into the messages to them."""
        self._last += 1
        due = now + (seconds if nodes else 0.0)
        self._open[self._last] = Query(kind, set(nodes), due, ended)
        return self._last

    def report(self, report: Report) -> None:
        query = self._open.get(report.query)
        if query is None or type(report) is not query.kind or report.node not in query.missing:
            return
        query.missing.discard(report.node)
        query.reports.append(report)
        if not query.missing:
            self._end(report.query)

    def unreachable(self, number: int, node: str) -> None:
        """It could not be asked: nobody waits for it."""
        query = self._open.get(number)
        if query is None or node not in query.missing:
            return
        query.missing.discard(node)
        query.silent.append(node)
        if not query.missing:
            self._end(number)

    def tick(self, now: float) -> None:
        for number in [n for n, query in self._open.items() if now >= query.due]:
            self._end(number)

    def _end(self, number: int) -> None:
        query = self._open.pop(number)
        query.ended(query.reports, sorted([*query.silent, *query.missing]))
