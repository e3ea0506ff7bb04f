"""How far a sequence's KV may be from what one process would compute in the model's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.kv_bits import EXACT, check_kv_bits
from transports.codecs.layout import Codec

MOST_HOPS = 1024


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Only a sequence of the same can go on from what another has in its caches.

    `kv_bits` of keys and values, EXACT: as they are computed. `codecs`: how hidden states are
    written on the hop to the stage that begins with a layer, ascending by layer; raw on all others,
    also those of a layout that comes later.
    """

    kv_bits: int = EXACT
    codecs: tuple[tuple[int, Codec], ...] = ()

    def codec_before(self, layer: int) -> Codec:
        """Of the hop to the stage that begins with this layer."""
        for first, codec in self.codecs:
            if first == layer:
                return codec
        return Codec.RAW

    def to_wire(self) -> dict[str, Any]:
        codecs = [[layer, codec.value] for layer, codec in self.codecs]
        return {"kv_bits": self.kv_bits, "codecs": codecs}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Fidelity:
        """Raises KeyError, TypeError or ValueError for what is none."""
        codecs = tuple((layer, Codec(name)) for layer, name in values["codecs"])
        layers = [layer for layer, _ in codecs]
        if any(type(layer) is not int or layer < 1 for layer in layers):
            raise ValueError(f"codecs {codecs!r:.80}: a hop leads to a layer from 1 on")
        if layers != sorted(set(layers)) or len(layers) > MOST_HOPS:
            raise ValueError(f"codecs {codecs!r:.80}: layers must ascend")
        if any(codec is Codec.RAW for _, codec in codecs):
            raise ValueError(f"codecs {codecs!r:.80}: raw is what is not named")
        return cls(check_kv_bits(values["kv_bits"]), codecs)

    def __str__(self) -> str:
        bits = "exact" if self.kv_bits == EXACT else f"{self.kv_bits} bits"
        return ", ".join([bits, *(f"{codec} before {layer}" for layer, codec in self.codecs)])
