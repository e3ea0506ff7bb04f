"""Requests of a coordinator that was killed: they go on from what the stages hold of them."""

from __future__ import annotations

import pytest

from daemon.scheduler.actions import Deliver, Inquire
from daemon.scheduler.attempts import REPORT_SECONDS
from daemon.scheduler.request import FinishReason
from daemon.scheduler.scheduler import Scheduler
from tests.scheduler.harness import A, B, Harness, pipeline, request, show, show_span

GIVEN = (7, 8, 9)


class Successor(Harness):
    """A has 20 tokens of prompt and three of its answer; the pipeline of two stages is up next."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.keep(self.scheduler.submit(request(A, 20, max_tokens=5), 0.0, GIVEN))

    def up(self, epoch: int = 1) -> None:
        actions = self.keep(self.scheduler.configure(pipeline(epoch, term=2), self.now, {}))
        assert Inquire() in actions

    def report(self, *held: int) -> list[str]:
        """Of each stage, in order."""
        actions = []
        for stage, tokens in enumerate(held):
            actions += self.keep(self.scheduler.held(stage, {A: tokens}, self.now))
        return show(actions)


@pytest.mark.parametrize(
    ("held", "sent"),
    [((22, 22), "A1[22:23)!"), ((30, 24), "A1[22:23)!"), ((22, 20), "A1[20:23)!")],
    ids=["all", "guesses too", "one lags"],
)
def test_it_begins_at_what_every_stage_holds(held: tuple[int, int], sent: str) -> None:
    h = Successor()
    h.up()
    assert not h.report(held[0]), "the other stage has not spoken"
    (word,) = show(h.keep(h.scheduler.held(1, {A: held[1]}, h.now)))
    assert word == f"send {sent}"
    assert not h.frames[-1].commands, "nothing is released of it"


def test_what_is_new_comes_after_it() -> None:
    h = Successor()
    h.submit(request(B, 4))
    h.up()
    assert not h.frames
    h.report(22, 22)
    assert [show_span(s) for s in h.frames[0].spans] == ["A1[22:23)!"]


def test_only_what_is_not_known_is_delivered() -> None:
    h = Successor()
    h.up()
    h.report(22, 22)
    assert [a for a in h.computed(h.frames[-1], 5) if isinstance(a, Deliver)] == [
        Deliver(A, 23, (5,))
    ]
    last = show(h.computed(h.frames[-1], 6))
    assert last[:2] == ["deliver A@24 [6]", "end A length"], "two of five were left"


def test_stages_that_say_nothing_are_not_waited_for_for_long() -> None:
    h = Successor()
    h.up()
    h.report(21)
    assert h.scheduler.next_wake() == REPORT_SECONDS
    h.tick(REPORT_SECONDS)
    assert [show_span(s) for s in h.frames[-1].spans] == ["A1[21:23)!"]
    assert h.scheduler.next_wake() != REPORT_SECONDS


def test_one_that_is_cancelled_meanwhile_is_waited_for_no_longer_than_that() -> None:
    h = Successor()
    h.up()
    (ended, *_) = h.keep(h.scheduler.cancel(A, h.now))
    assert ended.reason is FinishReason.CANCELLED  # type: ignore[union-attr]
    h.tick(REPORT_SECONDS)
    assert h.scheduler.next_wake() is None


def test_a_new_layout_asks_again() -> None:
    h = Successor()
    h.up()
    h.report(22)
    h.keep(h.scheduler.configure(None, 0.5))
    h.now = 3.0
    h.up(epoch=2)
    h.report(3, 22)
    assert [show_span(f.spans[0]) for f in h.frames] == ["A1[3:19)", "A1[19:23)!"]
