"""Two stages on a core each, and an oracle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cluster import PinnedCluster
from benchmarks.guided.coordinator import VARIABLE
from benchmarks.models import STATE
from benchmarks.paced.oracle import Script


@contextmanager
def guided_cluster(
    folder: Path, split: Sequence[int], scripts: Sequence[Script]
) -> Iterator[PinnedCluster]:
    path = STATE / "scripts.json"
    path.write_text(json.dumps([script.to_json() for script in scripts]))
    os.environ[VARIABLE] = str(path)
    try:
        module = "benchmarks.guided.shardd"
        with PinnedCluster(folder, split, name="guided", module=module, guessing=True) as cluster:
            yield cluster
    finally:
        del os.environ[VARIABLE]
