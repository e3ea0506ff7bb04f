"""How long clients waited while something went on."""

from __future__ import annotations

import pytest

from daemon.coordinator.gaps import Gap, GapWatch


def test_the_longest_is_told_beside_what_that_client_is_used_to() -> None:
    watch = GapWatch()
    watch.delivered(b"a", [], 1)
    watch.delivered(b"b", [0.1, 0.3, 0.1, 0.9], 2)
    watch.delivered(b"a", [0.5], 1)
    assert watch.longest == Gap(b"b", 0.9, 0.1)
    assert watch.tokens == 4
    watch.waited(b"a", 2.0, [0.5])
    assert watch.longest == Gap(b"a", 2.0, 0.5)
    assert watch.longest.to_wire() == {
        "sequence": "61", "seconds": 2.0, "median_seconds": pytest.approx(0.5),
    }  # fmt: skip


def test_one_that_had_no_other_gap() -> None:
    watch = GapWatch()
    watch.delivered(b"a", [0.5], 1)
    assert watch.longest == Gap(b"a", 0.5, None)
