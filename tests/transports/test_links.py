"""The contract, over every kind of link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.transports.contract import CHECKS, Place

# What shared memory does otherwise, on purpose: frames are copied, one process comes at a time, and
# one in the middle (the group) takes what the receiver does not.
OTHERWISE = {"check_no_copy", "check_many_senders"}


@pytest.fixture(params=["memory", "tcp", "ipc", "shared"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Place], None], place: Place) -> None:
    if place.scheme == "shared" and check.__name__ in OTHERWISE:
        pytest.skip("not promised by shared memory")
    check(place)
