"""Questions that the nodes themselves must answer: their KV, their logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daemon import messages as msg
from daemon.coordinator.answer import Answer

ANSWER_SECONDS = 3.0  # that nodes have to answer


@dataclass(slots=True)
class Query:
    """What one client waits for. `ended` makes the reply from the reports and the silent nodes."""

    answer: Answer
    kind: type[msg.KvReport] | type[msg.LogsReport]
    missing: set[str]
    due: float
    ended: Callable[[list[msg.KvReport | msg.LogsReport], list[str]], dict[str, Any]]
    reports: list[msg.KvReport | msg.LogsReport] = field(default_factory=list)


class Queries:
    def __init__(self) -> None:
        self._open: dict[int, Query] = {}
        self._last = 0

    def ask(
        self,
        answer: Answer,
        kind: type[msg.KvReport] | type[msg.LogsReport],
        nodes: set[str],
        now: float,
        ended: Callable[[list[msg.KvReport | msg.LogsReport], list[str]], dict[str, Any]],
    ) -> int:
        """Open a query to these nodes; its number goes into the messages to them."""
        self._last += 1
        due = now + (ANSWER_SECONDS if nodes else 0.0)
        self._open[self._last] = Query(answer, kind, set(nodes), due, ended)
        return self._last

    def report(self, report: msg.KvReport | msg.LogsReport) -> None:
        query = self._open.get(report.query)
        if query is None or type(report) is not query.kind or report.node not in query.missing:
            return
        query.missing.discard(report.node)
        query.reports.append(report)
        if not query.missing:
            self._end(report.query)

    def tick(self, now: float) -> None:
        for number in [n for n, query in self._open.items() if now >= query.due]:
            self._end(number)

    def _end(self, number: int) -> None:
        query = self._open.pop(number)
        query.answer.reply(query.ended(query.reports, sorted(query.missing)))
