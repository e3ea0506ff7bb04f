"""Links of a given speed, and the link's time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from benchmarks.calm import Calm
from benchmarks.guided.common import Findings
from benchmarks.options import Multiplier, Options
from benchmarks.shaped import prefill
from benchmarks.shaped.cable import NAMESPACES, Cable, CableError


@pytest.fixture
def cable() -> Iterator[Cable]:
    try:
        laid = Cable()
    except CableError as error:
        pytest.skip(str(error))
    with laid:
        yield laid


def test_frames_that_are_under_way_together_count_once() -> None:
    assert prefill.link_seconds([]) == 0.0
    assert prefill.link_seconds([(5.0, 6.0), (1.0, 2.0)]) == pytest.approx(2.0)
    assert prefill.link_seconds([(1.0, 4.0), (2.0, 3.0), (3.5, 6.0)]) == pytest.approx(5.0)


def test_a_cable_has_the_speed_it_is_given(cable: Cable) -> None:
    for mbit, shown in ((100, "rate 100Mbit"), (None, "noqueue"), (None, "noqueue")):
        cable.shape(mbit)
        for end in cable.ends:
            assert shown in subprocess.check_output(["tc", "-n", end, "qdisc", "show"], text=True)


def test_nothing_is_left_whatever_happens(cable: Cable) -> None:
    assert all((NAMESPACES / end).exists() for end in cable.ends)
    with pytest.raises(KeyboardInterrupt), cable:
        raise KeyboardInterrupt
    assert not any((NAMESPACES / end).exists() for end in cable.ends)


def test_what_is_not_permitted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(returncode=2, stdout="", stderr="Operation not permitted\n")

    monkeypatch.setattr(subprocess, "run", refused)
    monkeypatch.setattr("shutil.which", lambda tool: tool)
    found = Findings(Options(), Multiplier("openblas", "openblas", {}), Calm(0.0))
    prefill.measure(found)
    assert [check.value for check in found.checks] == [None]
    assert "Operation not permitted" in found.notes[0]
