"""How many groups were started in this boot: in a file, so that a shardd that was restarted knows.

JACCL's driver may keep what a failed start leaves behind until the machine is restarted, and is
wedged by too much of it. So a start is counted, on disk, before it is made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from daemon import logs

JACCL_STARTS, OTHER_STARTS = 3, 1000
log = logs.get("supervisor")


class Starts:
    """`limit` None: the back end's own."""

    def __init__(self, path: Path, limit: int | None) -> None:
        self._path = path
        self._limit = limit
        self._boot = ""
        self._counts: dict[str, int] = {}
        self.damage = ""  # why the file cannot be believed
        self._read()

    def left(self, boot: str, backend: str) -> int:
        """How many more there may be. None while the file is damaged: nobody knows how many there
        were.
        """
        if self.damage or not boot:
            return 0
        return max(0, self.limit(backend) - self._count(boot, backend))

    def limit(self, backend: str) -> int:
        return self._limit or (JACCL_STARTS if backend == "jaccl" else OTHER_STARTS)

    def obstacle(self, boot: str, backend: str) -> str:
        """Why no more may be started, or ""."""
        if self.damage:
            return f"{self.damage}; delete the file once this machine was restarted"
        if not boot:
            return "nobody can tell when this machine was started, so that no start can be counted"
        if self.left(boot, backend):
            return ""
        limit = self.limit(backend)
        return f"{limit} groups were started since the machine was: no more until it is restarted"

    def count(self, boot: str, backend: str) -> None:
        """One more. OSError when that cannot be written: then it must not be started."""
        counts = {} if boot != self._boot else dict(self._counts)
        counts[backend] = counts.get(backend, 0) + 1
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, json.dumps({"boot": boot, "starts": counts}).encode())
            os.fsync(file)
        finally:
            os.close(file)
        fresh.replace(self._path)
        self._boot, self._counts = boot, counts

    def _count(self, boot: str, backend: str) -> int:
        return self._counts.get(backend, 0) if boot == self._boot else 0

    def _read(self) -> None:
        try:
            body = json.loads(self._path.read_text())
            boot, counts = body["boot"], body["starts"]
            if not isinstance(boot, str) or not all(
                isinstance(name, str) and type(count) is int and count >= 0
                for name, count in counts.items()
            ):
                raise ValueError("not a boot and numbers")
            self._boot, self._counts = boot, dict(counts)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.damage = f"{self._path} cannot be read ({error})"
            log.warning("no group of RDMA is started: %s", self.damage)

    def check_integrity(self) -> None:
        assert all(count >= 0 for count in self._counts.values())
        assert not self._counts or self._boot or self.damage == "", "starts of no boot"
