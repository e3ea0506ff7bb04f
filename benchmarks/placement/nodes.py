"""How long a layer and the head take on each node of a paced cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "BENCHMARK_NODES"  # names the file that a paced stage reads its times from


@dataclass(frozen=True, slots=True)
class Node:
    """Seconds of one token on one layer, and on the head. Every further token takes as long again:
    nothing is gained by taking several together.
    """

    layer: float
    head: float

    def pass_seconds(self, layers: int, last: bool, tokens: int) -> float:
        return tokens * (layers * self.layer + (self.head if last else 0.0))


def write(path: Path, nodes: Mapping[str, Node]) -> None:
    path.write_text(json.dumps({name: asdict(node) for name, node in nodes.items()}))


def of_environment(name: str) -> Node:
    """KeyError for a node that was not written."""
    return Node(**json.loads(Path(os.environ[VARIABLE]).read_text())[name])
