"""What is known of how fast each node is with a model: from the layers that it holds or has held,
else from a profile of a few; written down, so that it is measured once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daemon import logs
from daemon import messages as msg
from daemon.layers import LayerRange

log = logs.get("planning")


@dataclass(frozen=True, slots=True)
class Profile:
    """`seconds` of a step of one token on `layers`, without the head; `head_seconds` on that, None:
    not measured. `memory_bytes` for weights and KV. `machine`: device, BLAS and MLX that it was
    measured with.
    """

    layers: LayerRange
    seconds: float
    head_seconds: float | None
    memory_bytes: int
    machine: str

    def layer_seconds(self, layer_bytes: tuple[int, ...]) -> tuple[float, ...]:
        """Of each layer of the model: what a layer costs is taken to be what is read of it."""
        measured = sum(layer_bytes[self.layers.start : self.layers.end])
        per_byte = self.seconds / measured if measured else 0.0
        return tuple(nbytes * per_byte for nbytes in layer_bytes)


class Profiles:
    """Of all models, by their digests and the nodes' names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str], Profile] = {}
        self._recall()

    def get(self, digest: str, node: str, machine: str) -> Profile | None:
        """None as well when the machine is not what it was."""
        found = self._known.get((digest, node))
        return found if found and found.machine == machine else None

    def loaded(self, message: msg.Loaded, machine: str) -> None:
        """A stage measured itself when it loaded. What the head costs elsewhere stays known."""
        step, layers = message.step_seconds[0][1], LayerRange(message.start, message.end)
        head: float | None = message.head_seconds
        if not message.head_seconds:
            before = self.get(message.digest, message.node, machine)
            head = before.head_seconds if before else None
        seconds = max(0.0, step - message.head_seconds)
        profile = Profile(layers, seconds, head, message.memory_bytes, machine)
        self._keep(message.digest, message.node, profile)

    def profiled(self, message: msg.Profiled, machine: str) -> None:
        layers = LayerRange(message.start, message.end)
        profile = Profile(
            layers, message.layer_seconds, message.head_seconds, message.memory_bytes, machine
        )
        self._keep(message.digest, message.node, profile)

    def _keep(self, digest: str, node: str, profile: Profile) -> None:
        self._known[digest, node] = profile
        rows = [
            {"digest": d, "node": n, **asdict(p), "layers": [p.layers.start, p.layers.end]}
            for (d, n), p in self._known.items()
        ]
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(rows))
            fresh.replace(self._path)
        except OSError as error:  # a full disk costs a profile, which can be measured again
            log.warning("cannot write %s: %s", self._path, error)

    def _recall(self) -> None:
        try:
            rows = json.loads(self._path.read_text())
            self._known = {(str(row["digest"]), str(row["node"])): _profile(row) for row in rows}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be used: %s", self._path, error)


def _profile(row: Mapping[str, Any]) -> Profile:
    start, end = row["layers"]
    head = row["head_seconds"]
    return Profile(
        LayerRange(start, end),
        float(row["seconds"]),
        None if head is None else float(head),
        int(row["memory_bytes"]),
        str(row["machine"]),
    )
