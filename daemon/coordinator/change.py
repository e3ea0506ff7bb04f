"""What a change of layout takes: what is loaded and copied, and about how long that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.member import Member
from daemon.cluster.transfers import changed, transfers
from daemon.layers import LayerRange

LEAST_LOAD_SECONDS = 0.5  # stages that gain layers are warmed up anew, however few these are


@dataclass(frozen=True, slots=True)
class Change:
    """From one layout to another. `load_bytes` of weights by node, `kv_bytes` that are held now of
    the layers that move. `load_seconds`: of the slowest node, from its last loading; None where
    nobody has loaded anything. `copy_seconds` at the speed of the slowest link in use; None where
    none was measured.
    """

    old: tuple[Slot, ...]
    new: tuple[Slot, ...]
    load_bytes: Mapping[str, int]
    kv_bytes: int
    load_seconds: float | None
    copy_seconds: float | None

    def nodes(self) -> list[dict[str, Any]]:
        """What each node has now and is to have, in the shape of docs/protocol.md."""
        now, new = _by_node(self.old), _by_node(self.new)
        return [
            {
                "node": node,
                "now": str(now[node]) if node in now else None,
                "new": str(new[node]) if node in new else None,
                "moves": len(new.get(node, ())) - len(now.get(node, ())),
                "load_bytes": self.load_bytes.get(node, 0),
            }
            for node in dict.fromkeys([*new, *now])
        ]

    def to_wire(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes(),
            "load_bytes": sum(self.load_bytes.values()),
            "kv_bytes": self.kv_bytes,
            "load_seconds": self.load_seconds,
            "copy_seconds": self.copy_seconds,
        }


def change_of(
    model: ModelSpec,
    old: tuple[Slot, ...],
    new: tuple[Slot, ...],
    members: Mapping[str, Member],
    rates: Collection[float],
) -> Change:
    """`rates` are the links' bytes per second, where they were measured."""
    held = _by_node(old)
    gained = {
        slot.node: _gained(model, held.get(slot.node), slot.layers) for slot in changed(old, new)
    }
    moved = transfers(old, new)
    kv_bytes = sum(
        _kv_bytes(members.get(one.giver)) * len(one.layers) // len(held[one.giver]) for one in moved
    )
    paces = {name: pace for name, m in members.items() if (pace := _seconds_per_byte(m))}
    slowest = max(paces.values(), default=None)
    seconds = [
        max(LEAST_LOAD_SECONDS, nbytes * pace)
        for node, nbytes in gained.items()
        if (pace := paces.get(node, slowest)) is not None
    ]
    copy = kv_bytes / min(rates) if rates else None if kv_bytes else 0.0
    loading = max(seconds) if seconds else None if gained else 0.0
    return Change(old, new, gained, kv_bytes, loading, copy)


def _by_node(slots: tuple[Slot, ...]) -> dict[str, LayerRange]:
    return {slot.node: slot.layers for slot in slots}


def _gained(model: ModelSpec, held: LayerRange | None, new: LayerRange) -> int:
    """Bytes of weights in `new` that are not in `held`."""
    layers = set(range(new.start, new.end)) - set(range(held.start, held.end) if held else ())
    nbytes = sum(model.layer_bytes[layer] for layer in layers)
    if new.start == 0 and not (held and held.start == 0):
        nbytes += model.embedding_bytes
    if new.end == model.layers and not (held and held.end == model.layers):
        nbytes += model.head_bytes
    return nbytes


def _kv_bytes(member: Member | None) -> int:
    return member.beat.kv_bytes if member and member.beat else 0


def _seconds_per_byte(member: Member) -> float | None:
    """Of its last loading, warming up included."""
    loaded = member.loaded
    return loaded.load_seconds / loaded.weights_bytes if loaded and loaded.weights_bytes else None
