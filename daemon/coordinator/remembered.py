"""Which model is to be served: written down, so that a coordinator that was restarted goes on with
it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon import logs
from daemon.cluster.placement.problem import Objective

log = logs.get("models")


@dataclass(frozen=True, slots=True)
class Remembered:
    """`configured` is what the configuration wished at that time. `nodes` have the layers, in this
    order; none: those that are there. `objective`: what the layout was chosen for; `by_hand`: an
    operator has said which it is to be.
    """

    reference: str
    split: tuple[int, ...]
    configured: str
    nodes: tuple[str, ...] = ()
    objective: Objective = Objective.BALANCED
    by_hand: bool = False


class Memory:
    def __init__(self, path: Path) -> None:
        self._path = path

    def recall(self, configured: str) -> Remembered | None:
        """What was served last, if the configuration has not changed its mind since."""
        try:
            body = json.loads(self._path.read_text())
            found = Remembered(
                str(body["reference"]),
                tuple(int(n) for n in body["split"]),
                body["configured"],
                tuple(str(name) for name in body["nodes"]),
                Objective(body["objective"]),
                bool(body["by_hand"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be used: %s", self._path, error)
            return None
        return found if found.configured == configured else None

    def keep(self, remembered: Remembered) -> None:
        """A full disk costs the memory, not the model."""
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(asdict(remembered)))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
