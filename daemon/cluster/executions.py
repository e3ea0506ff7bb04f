"""Stage processes that are to be killed: asked for until their shardd says that they have ended."""

from __future__ import annotations

from dataclasses import dataclass

from daemon import messages as msg
from daemon.cluster.events import Note, ToNode


@dataclass(slots=True)
class Condemned:
    pid: int
    why: str
    asked_at: float
    until: float


class Executions:
    """At most one per node. `patience` seconds after the sentence nobody is asked any more: the
    shardd is gone too.
    """

    def __init__(self, ask_again_after: float, patience: float) -> None:
        self._ask_again_after = ask_again_after
        self._patience = patience
        self._condemned: dict[str, Condemned] = {}

    def condemn(self, node: str, pid: int, why: str, now: float) -> Note:
        """It is asked for by the next `due`."""
        self._condemned[node] = Condemned(pid, why, float("-inf"), now + self._patience)
        return Note("ended", node, f"stage process {pid}: {why}")

    def ended(self, node: str, pid: int | None = None) -> None:
        """The process has ended, or another has taken its place (None)."""
        condemned = self._condemned.get(node)
        if condemned and pid in (None, condemned.pid):
            del self._condemned[node]

    def due(self, term: int, now: float) -> list[ToNode]:
        """Whom to ask now."""
        actions = []
        for node, condemned in list(self._condemned.items()):
            if now >= condemned.until:
                del self._condemned[node]
            elif now - condemned.asked_at >= self._ask_again_after:
                condemned.asked_at = now
                kill = msg.KillStage(term, condemned.pid, condemned.why)
                actions.append(ToNode(node, kill))
        return actions
