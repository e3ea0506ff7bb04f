"""A request that waits for saved KV is known to everybody, and does not wait for long."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.coordinator.intake import LEAST_PATIENCE
from daemon.coordinator.process import Coordinator
from daemon.coordinator.tokenizer import Tokenizer
from daemon.scheduler.request import FinishReason
from tests.coordinator.stand_in import StandIn

MORE = 4000  # tokens that are saved


@pytest.fixture
def of(tmp_path: Path, chatml: Tokenizer) -> StandIn:
    stand_in = StandIn(tmp_path)
    stand_in.serve(chatml)
    stand_in.saved = cast(Any, object()), MORE
    return stand_in


def idle(of: StandIn) -> bool:
    """As draining and ending go by it."""
    return bool(cast(Any, Coordinator.idle).fget(of))


def head(of: StandIn) -> dict[str, Any]:
    return of.heard[0].data  # type: ignore[union-attr]


def test_it_is_seen(of: StandIn) -> None:
    assert of.turn("talk", prompt="one") is None
    assert head(of)["cached_tokens"] is None
    sequence = head(of)["sequence"]
    assert not list(of.scheduler.sequences())
    assert not idle(of)
    (row,) = of.request("ps")["sequences"]
    assert (row["sequence"], row["state"]) == (sequence, "loading-kv")
    assert row["prompt_tokens"] > row["output_tokens"] == 0
    before = set(row)
    of.reads.pop()(None)
    (row,) = of.request("ps")["sequences"]
    assert (row["sequence"], row["state"]) == (sequence, "prefill")
    assert set(row) == before
    of.end()
    assert idle(of)


def test_its_client_hears_of_it_once(of: StandIn) -> None:
    of.turn("talk", prompt="one")
    of.reads.pop()(None)
    assert len(of.heard) == 1


@pytest.mark.parametrize("wanted", ["all", "00"])
def test_it_is_cancelled(of: StandIn, wanted: str) -> None:
    of.turn("talk", prompt="one")
    sequence = head(of)["sequence"]
    of.heard.clear()
    of.streams.cancel(of.answer(), {"sequence": wanted})
    ended, cancelled = of.heard
    assert cancelled.data == {"cancelled": [sequence]}  # type: ignore[union-attr]
    assert ended.data["finish_reason"] == "cancelled"  # type: ignore[union-attr]
    assert idle(of)
    of.reads.pop()(None)
    assert not list(of.scheduler.sequences())
    assert of.turn("talk", prompt="two") is None, "and is not busy after that"


def test_it_ends_with_its_model(of: StandIn) -> None:
    of.turn("talk", prompt="one")
    of.streams.cancel_all()
    assert of.last()["finish_reason"] == "cancelled"
    assert idle(of)


@pytest.mark.parametrize("how", ["silent", "gone", "gone at once"])
def test_it_ends_with_its_client(of: StandIn, how: str) -> None:
    of.connected = how != "gone at once"
    of.turn("talk", prompt="one")
    of.connected = how == "silent"
    if how == "gone":
        of.streams.waiting("the pipeline is down")
    assert not idle(of), "it may come back"
    of.nobody_comes_back()
    assert idle(of)
    assert len(of.reads) == 1
    of.connected = True
    of.saved = None
    assert of.turn("talk", prompt="two") is None


def test_it_does_not_wait_longer_than_computing_takes(of: StandIn) -> None:
    for seconds, least in ((0.0, LEAST_PATIENCE), (0.01, MORE * 0.01)):
        loaded = SimpleNamespace(prefill_token_seconds=seconds)
        of.cluster.members.update(
            a=SimpleNamespace(loaded=loaded),
            b=SimpleNamespace(loaded=SimpleNamespace(prefill_token_seconds=0.0)),
        )
        of.cluster.slots = tuple(SimpleNamespace(node=node) for node in ("a", "b"))
        asked = time.monotonic()
        of.turn("talk", prompt="one")
        of.intake.tick(asked + least - 0.1)
        assert not list(of.scheduler.sequences())
        of.intake.tick(time.monotonic() + least)
        assert len(list(of.scheduler.sequences())) == 1
        of.reads.pop()(None)  # late
        of.end(FinishReason.CANCELLED)


def test_what_cannot_be_taken_after_it_is_refused(tmp_path: Path, chatml: Tokenizer) -> None:
    of = StandIn(tmp_path, context=16)
    of.serve(chatml)
    of.saved = cast(Any, object()), MORE
    assert of.turn("talk", prompt="more than fits, if only by a little") is None
    of.reads.pop()(None)
    assert of.last().startswith("2 the request cannot be taken: the prompt has")
    of.streams.waiting("down")
    assert of.last().startswith("2 "), "nothing comes after that"
    of.saved = None
    assert "busy" not in str(of.turn("talk", prompt="x" * 99))


def test_who_begins_to_drain_takes_no_request(of: StandIn) -> None:
    """Also none that was at the desk; what waits already is let go on."""
    of.turn("talk", prompt="one")
    of.closing = True
    of.reads.pop()(None)
    of.end()
    of.closing = False
    of.intake.generate(of.answer(), {"prompt": "two", "conversation": "talk"})
    of.closing = True
    of.desk.run()
    assert of.last().startswith("5 the cluster is draining")
    assert idle(of)
    assert "draining" in of.turn("talk", prompt="three"), "not busy"


def test_who_ends_says_so(of: StandIn) -> None:
    of.turn("talk", prompt="one")
    of.streams.close()
    assert of.last().startswith("1 the coordinator has stopped")
