"""Work that several stages do for one purpose, until each has said how it went."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Ended = Callable[[Mapping[str, T], Collection[str], bool], object]


@dataclass(slots=True)
class _Round(Generic[T]):
    missing: set[str]
    due: float
    ended: Ended[T]
    reports: dict[str, T] = field(default_factory=dict)


class Rounds(Generic[T]):
    """`ended` is called once for each round, with the reports by node, the silent nodes, and
    whether it was given up.
    """

    def __init__(self, first: int) -> None:
        self._open: dict[int, _Round[T]] = {}
        self._last = first

    def begin(self, nodes: Collection[str], due: float, ended: Ended[T]) -> int:
        """The number that goes into the messages to these nodes, at least one."""
        self._last += 1
        self._open[self._last] = _Round(set(nodes), due, ended)
        return self._last

    def report(self, number: int, node: str, report: T) -> None:
        found = self._open.get(number)
        if found is None or node not in found.missing:
            return
        found.missing.discard(node)
        found.reports[node] = report
        if not found.missing:
            self._end(number)

    def tick(self, now: float) -> None:
        for number in [n for n, one in self._open.items() if now >= one.due]:
            self._end(number)

    def give_up(self) -> None:
        """Nobody is going to answer any more."""
        for number in list(self._open):
            self._end(number, given_up=True)

    def _end(self, number: int, given_up: bool = False) -> None:
        """Once: what follows from the end of one round may have ended others already."""
        if (found := self._open.pop(number, None)) is not None:
            found.ended(found.reports, sorted(found.missing), given_up)
