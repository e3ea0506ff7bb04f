"""A shardd at its end of the cable: the first node's where it was started, the others' in the
namespace that BENCHMARK_OTHER_END names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.children import replaced
from benchmarks.shaped.cable import enter
from daemon.__main__ import main
from daemon.config import load
from daemon.supervisor import node

OTHER_END = "BENCHMARK_OTHER_END"

if __name__ == "__main__":
    if not load(Path(sys.argv[-1])).coordinator.run:
        enter(os.environ[OTHER_END])
    with_traces = replaced({"daemon.coordinator": "benchmarks.shaped.coordinator"})
    node.Child = with_traces  # type: ignore[attr-defined,assignment]
    main()
