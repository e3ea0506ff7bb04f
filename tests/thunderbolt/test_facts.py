"""Facts as they travel, and what pretends to be facts."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.thunderbolt.facts import FactsError, Machine
from tests.thunderbolt.recordings import recorded


@pytest.mark.parametrize("name", ["mini-a", "macbook-off", "macbook-on", "mini-tb4", "studio"])
def test_there_and_back(name: str) -> None:
    machine = recorded(name)
    assert Machine.from_wire(machine.to_wire()) == machine


def changed(path: str, value: Any) -> dict[str, Any]:
    facts = recorded("mini-a").to_wire()
    place: Any = facts
    *way, last = path.split(".")
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return facts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ports", None), ("ports", {}), ("ports", [1]), ("ports", [{}]),
        ("ports", [recorded("mini-a").to_wire()["ports"][0]] * 65),
        ("model", 7), ("model", "x" * 401), ("model", KeyError), ("more", "x"),
        ("tools", {"a": 1}), ("tools", {1: "a"}), ("tools", {"a": ["b"]}),
        ("ports.0.speed", "80"), ("ports.0.speed", -1), ("ports.0.speed", 1 << 40),
        ("ports.0.speed", True), ("ports.0.gids", [1]), ("ports.0.gids", ["x"] * 1000),
        ("ports.0.gids", [["x"]]), ("ports.0.peer_offers_rdma", "yes"), ("ports.0.bridge", None),
        ("ports.0.addresses", ["not an address"]), ("ports.0.interface", "en2; reboot"),
        ("ports.0.bridge", "-bridge0"), ("ports.0.device", "rdma_en2\n"),
    ],
)  # fmt: skip
def test_other_maps_are_refused(path: str, value: Any) -> None:
    with pytest.raises(FactsError):
        Machine.from_wire(changed(path, value))
