"""A shardd whose coordinator asks an oracle."""

from __future__ import annotations

from benchmarks.children import replaced
from daemon.__main__ import main
from daemon.supervisor import node

if __name__ == "__main__":
    with_oracle = replaced({"daemon.coordinator": "benchmarks.guided.coordinator"})
    node.Child = with_oracle  # type: ignore[attr-defined,assignment]
    main()
