"""A shardd whose stage is paced."""

from __future__ import annotations

from benchmarks.children import replaced
from daemon.__main__ import main
from daemon.supervisor import node

if __name__ == "__main__":
    node.Child = replaced(  # type: ignore[attr-defined,assignment]
        {"daemon.stage": "benchmarks.placement.stage"}
    )
    main()
