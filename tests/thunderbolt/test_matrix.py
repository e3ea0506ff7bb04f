"""Cables by UUID, and JACCL's matrix: several cables in one order at both ends."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from daemon.thunderbolt.cables import cables
from daemon.thunderbolt.facts import Machine, Port
from daemon.thunderbolt.matrix import matrix
from tests.thunderbolt.recordings import recorded

BASE = recorded("mini-a")


def machine(node: str, *lines: tuple[str, str, str], **changes: object) -> Machine:
    """A Mac with ports of (receptacle, own domain, peer's domain), all well."""
    ports = [
        Port(
            receptacle=receptacle,
            domain=own,
            interface=f"en{receptacle}",
            device=f"rdma_en{receptacle}",
            state="active",
            connected="yes",
            speed=80,
            peer_domain=peer,
            gids=[f"::ffff:169.254.{ord(node)}.{receptacle}"],
            addresses=[f"169.254.{ord(node)}.{receptacle}/16"],
        )
        for receptacle, own, peer in lines
    ]
    return replace(BASE, ports=[replace(port, **changes) for port in ports])  # type: ignore[arg-type]


def test_two_nodes_one_cable() -> None:
    nodes = {"a": recorded("mini-a"), "b": recorded("mini-b")}
    found = matrix(["a", "b"], nodes)
    assert found.devices == [[[], ["rdma_en3"]], [["rdma_en3"], []]]
    assert (found.shape, found.wants_ring, found.missing) == ("mesh", False, [])
    assert found.coordinator == "169.254.10.1"
    assert matrix(["b", "a"], nodes).coordinator == "169.254.10.2"


def test_crossed_cables_keep_their_order_at_both_ends() -> None:
    """a's port 2 leads to b's port 5, a's port 3 to b's port 4."""
    a = machine("a", ("3", "A3", "B4"), ("2", "A2", "B5"))
    b = machine("b", ("4", "B4", "A3"), ("5", "B5", "A2"))
    for order in (["a", "b"], ["b", "a"]):
        found = matrix(order, {"a": a, "b": b})
        of_a, of_b = (found.devices[0][1], found.devices[1][0])[:: 1 if order[0] == "a" else -1]
        assert of_a == ["rdma_en2", "rdma_en3"]
        assert of_b == ["rdma_en5", "rdma_en4"]
        assert (found.shape, found.wants_ring) == ("ring", True)


def test_receptacles_are_ordered_as_numbers() -> None:
    a = machine("a", ("10", "A10", "B1"), ("9", "A9", "B2"))
    b = machine("b", ("1", "B1", "A10"), ("2", "B2", "A9"))
    assert [cable.a.port.receptacle for cable in cables({"a": a, "b": b})] == ["9", "10"]


TRIANGLE = {
    "a": machine("a", ("1", "A1", "B1"), ("2", "A2", "C1")),
    "b": machine("b", ("1", "B1", "A1"), ("2", "B2", "C2")),
    "c": machine("c", ("1", "C1", "A2"), ("2", "C2", "B2")),
}


def test_a_full_mesh_in_any_order() -> None:
    for order in permutations("abc"):
        found = matrix(order, TRIANGLE)
        assert found.shape == "mesh"
        assert found.coordinator == ""
        for i, node in enumerate(order):
            assert found.devices[i][i] == []
            used = {port.device for port in TRIANGLE[node].ports}
            assert {cell[0] for j, cell in enumerate(found.devices[i]) if j != i} == used


SQUARE = {
    "a": machine("a", ("1", "A1", "B2"), ("2", "A2", "D1")),
    "b": machine("b", ("1", "B1", "C2"), ("2", "B2", "A1")),
    "c": machine("c", ("1", "C1", "D2"), ("2", "C2", "B1")),
    "d": machine("d", ("1", "D1", "A2"), ("2", "D2", "C1")),
}


def test_a_ring_of_four() -> None:
    found = matrix("abcd", SQUARE)
    assert (found.shape, found.missing) == ("ring", [])
    assert found.devices[0] == [[], ["rdma_en1"], [], ["rdma_en2"]]
    assert found.devices[2] == [[], ["rdma_en2"], [], ["rdma_en1"]]


def test_what_is_missing_is_named() -> None:
    found = matrix("acbd", SQUARE)
    assert found.shape == ""
    assert found.missing == [
        "no Thunderbolt cable between a and c",
        "no Thunderbolt cable between b and d",
    ]
    found = matrix(["a", "b", "x"], TRIANGLE)
    assert found.missing == ["x has not answered"]
    old = replace(TRIANGLE["b"], version="26.1")
    assert matrix("abc", {**TRIANGLE, "b": old}).missing == [
        "b: macOS 26.1 has no RDMA over Thunderbolt, which came with 26.2"
    ]
    assert matrix(["a"], TRIANGLE).missing == ["a group has two nodes or more"]


def test_a_cable_that_is_not_ready_is_named() -> None:
    bad = machine("b", ("1", "B1", "A1"), ("2", "B2", "C2"), bridge="bridge0")
    found = matrix("abc", {**TRIANGLE, "b": bad})
    assert found.shape == ""
    assert "port 1 of b is bridge-active" in found.missing[0]


def test_the_better_of_two_cables_is_used() -> None:
    a = machine("a", ("2", "A2", "B5"), ("3", "A3", "B4"))
    b = machine("b", ("5", "B5", "A2"), ("4", "B4", "A3"))
    down = replace(b, ports=[replace(b.ports[0], state="down"), b.ports[1]])
    found = matrix("ab", {"a": a, "b": down})
    assert found.devices == [[[], ["rdma_en3"]], [["rdma_en4"], []]]


def test_rings_have_equally_many_cables_everywhere() -> None:
    a = machine("a", ("1", "A1", "B1"), ("2", "A2", "C1"), ("3", "A3", "B3"))
    b = machine("b", ("1", "B1", "A1"), ("2", "B2", "C2"), ("3", "B3", "A3"))
    found = matrix("abc", {**TRIANGLE, "a": a, "b": b})
    assert {len(cell) for row in found.devices for cell in row if cell} == {1}
    wide = machine("a", *((f"{i}", f"A{i}", f"B{i}") for i in range(6)))
    other = machine("b", *((f"{i}", f"B{i}", f"A{i}") for i in range(6)))
    assert len(matrix("ab", {"a": wide, "b": other}).devices[0][1]) == 4


def test_one_sided_and_doubled_uuids_are_no_cables() -> None:
    a = machine("a", ("1", "A1", "B1"))
    assert cables({"a": a, "b": machine("b", ("1", "B1", ""))}) == []
    assert cables({"a": a, "b": machine("b", ("1", "B1", "A1"), ("2", "B1", "A1"))}) == []
    assert cables({"a": machine("a", ("1", "A1", "A2"), ("2", "A2", "A1"))}) == []
