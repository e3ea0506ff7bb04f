"""What outlasts the coordinator about RDMA: whether an operator has enabled it, and what failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from daemon import logs
from daemon.cluster.rdma.events import Remember

NOTHING = Remember(False, 0, (), "")
log = logs.get("rdma")


class RdmaMemory:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = NOTHING

    def recall(self) -> Remember:
        """RDMA is off when the file is damaged: nobody can tell what was said."""
        try:
            self._kept = _remembered(json.loads(self._path.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be used, RDMA is not enabled: %s", self._path, error)
        return self._kept

    def keep(self, remember: Remember) -> str:
        """Why it could not be written, or "": it is in force all the same."""
        if remember == self._kept:
            return ""
        self._kept = remember
        fresh = self._path.with_suffix(".new")
        body = {
            "enabled": remember.enabled,
            "failures": remember.failures,
            "quarantine": [
                {node: [boot, list(devices)] for node, (boot, devices) in group.items()}
                for group in remember.quarantine
            ],
            "why": remember.why,
        }
        try:
            with fresh.open("w") as file:
                json.dump(body, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)
            return f"cannot write {self._path}: {error}"
        return ""


def _remembered(body: dict[str, Any]) -> Remember:
    enabled, failures = body["enabled"], body["failures"]
    if type(enabled) is not bool or failures not in (0, 1):
        raise ValueError("not a switch and a count")
    quarantine = tuple(
        {
            str(node): (str(boot), tuple(str(device) for device in devices))
            for node, (boot, devices) in group.items()
        }
        for group in body["quarantine"]
    )
    if any(len(group) < 2 for group in quarantine):
        raise ValueError("one machine alone in quarantine")
    return Remember(enabled, failures, quarantine, str(body["why"]))
