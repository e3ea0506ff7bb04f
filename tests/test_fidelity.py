"""How exact a sequence is, as it travels."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.fidelity import Fidelity
from transports.codecs.layout import Codec

CODED = Fidelity(8, ((2, Codec.FP8), (5, Codec.INT8)))


@pytest.mark.parametrize("fidelity", [Fidelity(), Fidelity(4), CODED])
def test_round_trip(fidelity: Fidelity) -> None:
    assert Fidelity.from_wire(fidelity.to_wire()) == fidelity


def test_what_is_not_named_is_raw() -> None:
    assert [CODED.codec_before(layer) for layer in (1, 2, 3, 5, 9)] == [
        Codec.RAW, Codec.FP8, Codec.RAW, Codec.INT8, Codec.RAW,
    ]  # fmt: skip


def test_it_says_what_it_is() -> None:
    assert (str(Fidelity()), str(CODED)) == ("exact", "8 bits, fp8 before 2, int8 before 5")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kv_bits": 0},
        {"kv_bits": 3, "codecs": []},
        {"kv_bits": 0, "codecs": None},
        {"kv_bits": 0, "codecs": [[2]]},
        {"kv_bits": 0, "codecs": [[0, "fp8"]]},
        {"kv_bits": 0, "codecs": [[True, "fp8"]]},
        {"kv_bits": 0, "codecs": [["2", "fp8"]]},
        {"kv_bits": 0, "codecs": [[2, "raw"]]},
        {"kv_bits": 0, "codecs": [[2, "fp9"]]},
        {"kv_bits": 0, "codecs": [[3, "fp8"], [2, "fp8"]]},
        {"kv_bits": 0, "codecs": [[2, "fp8"], [2, "int8"]]},
        {"kv_bits": 0, "codecs": [[n, "fp8"] for n in range(1, 2000)]},
    ],
)
def test_what_is_none_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Fidelity.from_wire(values)
