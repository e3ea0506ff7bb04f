"""What is known of nodes' speed, and that it is still known after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from daemon import messages as msg
from daemon.coordinator.profiles import Profile, Profiles
from daemon.layers import LayerRange

MACHINE, DIGEST = "cpu openblas mlx 0.29", "d1"
BYTES = (100, 100, 100, 300)


def loaded(start: int, end: int, step: float, head: float = 0.0) -> msg.Loaded:
    held, speed = (DIGEST, start, end, "tcp://a:1", 70, 9, 0.1), ([[1.0, step]], 0.1, head)
    return msg.Loaded("a", "i", *held, *speed, True, "spans", 100, 30, [[0, 8, 0]], None, {})


def profiled(**changes: object) -> msg.Profiled:
    whole = msg.Profiled(1, "a", DIGEST, 1, 3, 0.2, 0.01, 0.5, 900, "")
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_of_a_stage_that_has_loaded(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "profiles.json")
    profiles.loaded(loaded(1, 3, 0.2), MACHINE)
    found = profiles.get(DIGEST, "a", MACHINE)
    assert found == Profile(LayerRange(1, 3), 0.2, None, 100, MACHINE)
    assert found.layer_seconds(BYTES) == pytest.approx((0.1, 0.1, 0.1, 0.3))
    profiles.loaded(loaded(2, 4, 0.9, head=0.5), MACHINE)
    profiles.loaded(loaded(0, 2, 0.2), MACHINE)
    found = profiles.get(DIGEST, "a", MACHINE)
    assert found == Profile(LayerRange(0, 2), 0.2, 0.5, 100, MACHINE), "the head is remembered"


def test_the_head_is_no_layer(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "profiles.json")
    profiles.loaded(loaded(2, 4, 0.9, head=0.5), MACHINE)
    found = profiles.get(DIGEST, "a", MACHINE)
    assert found
    assert (found.seconds, found.head_seconds) == (pytest.approx(0.4), 0.5)


def test_it_is_still_known_after_a_restart_but_not_of_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    Profiles(path).profiled(profiled(), MACHINE)
    known = Profiles(path)
    assert known.get(DIGEST, "a", MACHINE) == Profile(LayerRange(1, 3), 0.2, 0.5, 900, MACHINE)
    assert known.get(DIGEST, "a", "cpu reference mlx 0.29") is None
    assert known.get("d2", "a", MACHINE) is known.get(DIGEST, "b", MACHINE) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"digest": "d"}]', "[[]]", '[{"layers": [3, 1]}]']
)
def test_a_damaged_file_is_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(text)
    assert Profiles(path).get(DIGEST, "a", MACHINE) is None


def test_a_full_disk_costs_the_memory_only(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "no" / "folder.json")
    profiles.profiled(profiled(), MACHINE)
    assert profiles.get(DIGEST, "a", MACHINE)
