"""Which nodes are drained: written down, so that a coordinator that was restarted leaves them
alone too.
"""

from __future__ import annotations

import json
from pathlib import Path

from daemon import logs

log = logs.get("draining")


class Drained:
    def __init__(self, path: Path) -> None:
        self._path = path

    def recall(self) -> frozenset[str]:
        """None of them when the file is damaged."""
        try:
            names = json.loads(self._path.read_text())
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise TypeError("not a list of names")
            return frozenset(names)
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be used: %s", self._path, error)
            return frozenset()

    def keep(self, nodes: frozenset[str]) -> None:
        """A full disk costs the memory, not the drain."""
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(sorted(nodes)))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)
