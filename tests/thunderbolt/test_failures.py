"""Every row of the failure table is recognised from what is said when it happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.failures import TABLE, recognise, recognise_machine
from daemon.thunderbolt.verdicts import Word
from tests.thunderbolt.recordings import recorded, said

GUIDE = Path(__file__).parents[2] / "docs" / "rdma.md"
FAILURES = Path(__file__).parent / "recorded" / "failures"
EMPTY = said("mini-tb4")["ibv_devices"]
NONE = {"ibv_devices": EMPTY, "ibv_devinfo": "No IB devices found\n"}
TEXTS = {path.stem: path.read_text("utf-8") for path in sorted(FAILURES.glob("*.txt"))}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_recognised(name: str) -> None:
    """A file is called after its row, with a number where there are several."""
    advice = recognise(TEXTS[name])
    assert advice is not None
    assert advice.row == re.sub(r"\.\d+$", "", name)


@pytest.mark.parametrize(
    ("machine", "row"),
    [
        (recorded("mini-tb4"), "no-thunderbolt-5"),
        (recorded("macbook-off"), "flag-off"),
        (recorded("mini-a", **NONE), "no-device"),
        (recorded("mini-a", ibv_devinfo="hangs"), "no-device"),
    ],
)
def test_a_machine_is_recognised(machine: Machine, row: str) -> None:
    advice = recognise_machine(machine)
    assert advice is not None
    assert advice.row == row


def test_a_machine_that_is_well_has_no_row() -> None:
    assert recognise_machine(recorded("mini-a")) is None


def test_every_row_has_an_example() -> None:
    by_machine = {"no-thunderbolt-5", "flag-off", "no-device"}
    by_text = {re.sub(r"\.\d+$", "", name) for name in TEXTS}
    assert by_machine | by_text == {advice.row for advice in TABLE}


@pytest.mark.parametrize("text", ["", "ready", "rdma_en3 errno 220", "[jaccl] hello", "error: 650"])
def test_what_is_new_is_not_guessed_at(text: str) -> None:
    assert recognise(text) is None


def test_what_leaks_is_never_to_be_repeated() -> None:
    """Queue pairs, protection domains, addresses: another attempt finds the same, and costs."""
    spent = {"queue-pairs", "protection-domain", "rtr-22", "rtr-96", "memory-regions", "no-address"}
    assert not [advice.row for advice in TABLE if advice.row in spent and advice.retry]


def test_recovery_only_where_the_flag_is_off() -> None:
    assert [advice.row for advice in TABLE if "Recovery" in advice.fix] == ["flag-off"]


def rows_below(heading: str) -> list[str]:
    """The first column of the table below a heading of the guide."""
    _, _, below = GUIDE.read_text("utf-8").partition(f"\n## {heading}\n")
    return re.findall(r"^\| `([a-z0-9-]+)` \|", below.partition("\n## ")[0], re.MULTILINE)


def test_the_guide_has_the_same_rows_and_words() -> None:
    assert rows_below("What goes wrong") == [advice.row for advice in TABLE]
    assert rows_below("Looking") == [word.value for word in Word]
