"""A shardd whose children are paced."""

from __future__ import annotations

from benchmarks.children import replaced
from daemon.__main__ import main
from daemon.supervisor import node

PACED = {f"daemon.{name}": f"benchmarks.paced.{name}" for name in ("stage", "coordinator", "draft")}

if __name__ == "__main__":
    node.Child = replaced(PACED)  # type: ignore[attr-defined,assignment]
    main()
