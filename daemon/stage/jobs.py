"""What the bulk thread of a stage process is asked for, and what it reports. `number` is the
asker's, and comes back. Of saves there is never more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.history import History
from daemon.layers import LayerRange
from daemon.storage.content import LayerBytes, LayerParts
from daemon.storage.folder import StoredFile
from daemon.storage.form import LayerForm
from daemon.storage.manifest import Identity


@dataclass(frozen=True, slots=True)
class Save:
    identity: Identity
    layers: LayerRange
    tokens: Sequence[int]
    parts: Sequence[LayerParts]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node that has these layers of an entry."""

    address: str
    layers: LayerRange


@dataclass(frozen=True, slots=True)
class Restore:
    """Read `layers`, of `forms`, from this node's files and, what these lack, from the peers'."""

    number: int
    identity: Identity
    layers: LayerRange
    forms: Sequence[LayerForm]
    peers: Sequence[Peer]


@dataclass(frozen=True, slots=True)
class Survey:
    """Look at what there is of a model."""

    digest: str


@dataclass(frozen=True, slots=True)
class Drop:
    digest: str
    entry: str


@dataclass(frozen=True, slots=True)
class Installed:
    """The last `LayerRead` was dealt with: another may be read."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody waits for this restore any more: there may be no report of it."""

    number: int


Job = Save | Restore | Survey | Drop | Installed | Abandon


@dataclass(frozen=True, slots=True)
class Saved:
    """`why` says what went wrong, "" when nothing did."""

    nbytes: int
    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class LayerRead:
    """One layer of a restore, in any order; not to be used before `Restored` says that all came.
    To be answered with `Installed`.
    """

    number: int
    layer: int
    content: LayerBytes


@dataclass(frozen=True, slots=True)
class Restored:
    """The last word on a restore. `history` are the tokens, None when it failed."""

    number: int
    history: History | None
    nbytes: int
    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Surveyed:
    digest: str
    files: Sequence[StoredFile]


Report = Saved | LayerRead | Restored | Surveyed
