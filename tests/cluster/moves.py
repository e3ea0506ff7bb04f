"""A rebalance in a thread: its progress, and what comes of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Self

from ctl.errors import CommandError
from tests.cluster.harness import Cluster


class Move:
    """`phases` are those that were seen, `reply` is the last word, `error` why there is none."""

    def __init__(self, cluster: Cluster, split: Sequence[int], nodes: Sequence[str]) -> None:
        self.phases: list[str] = []
        self.reply: dict[str, Any] = {}
        self.error: CommandError | None = None
        self._cluster = cluster
        self._wanted = {"split": list(split), "nodes": list(nodes)}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._cluster.client() as client:
                for message in client.stream("rebalance", self._wanted):
                    if moving := message.data.get("moving"):
                        self.phases.append(moving["phase"])
                    self.reply = message.data
        except CommandError as error:
            self.error = error

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> Self:
        self._thread.join(60.0)
        assert self.over, f"it does not end: {self._cluster.logs()[-6000:]}"
        return self


def layout(cluster: Cluster) -> dict[str, str]:
    """Layers by node, in their order."""
    return {stage["node"]: stage["layers"] for stage in cluster.ask("pipeline")["stages"]}
