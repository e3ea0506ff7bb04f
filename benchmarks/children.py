"""Other processes in the place of shardd's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daemon.supervisor.child import Child


def replaced(modules: Mapping[str, str]) -> Callable[..., Child]:
    """What makes a child of shardd, as `python -m` the module that stands for its own."""

    def child(name: str, command: Sequence[str], *others: Any) -> Child:
        return Child(name, [modules.get(word, word) for word in command], *others)

    return child
