"""A shardd whose children are paced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.__main__ import main
from daemon.supervisor import node
from daemon.supervisor.child import Child

PACED = {
    "daemon.stage": "benchmarks.paced.stage",
    "daemon.coordinator": "benchmarks.paced.coordinator",
    "daemon.draft": "benchmarks.paced.draft",
}


def _paced(name: str, command: Sequence[str], *others: Any) -> Child:
    return Child(name, [PACED.get(word, word) for word in command], *others)


if __name__ == "__main__":
    node.Child = _paced  # type: ignore[attr-defined,assignment]
    main()
