"""How hidden states are written on a hop: what was measured of it, and what follows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from daemon.fidelity import Fidelity
from daemon.scheduler.hops import LARGE_BYTES, Hops, HopSpeed, expected_traffic
from daemon.scheduler.pipeline import Hop, Pipeline, StageCost
from daemon.scheduler.prefix import Entry, PrefixIndex
from transports.codecs.choice import Cost
from transports.codecs.layout import Codec
from transports.frame import DType, Span, StageTrace

WIDTH, CHUNK = 2048, 64
ROW, CODED_ROW = 4 * WIDTH, WIDTH + 34
COSTS = {Codec.FP8: Cost(90e-6, 11e-6), Codec.INT8: Cost(85e-6, 9e-6)}
SLOW = 11.7e6  # bytes per second: Fast Ethernet
CODED = Fidelity(0, ((2, Codec.FP8),))
LONG = expected_traffic(2000, 100, CHUNK, 1)
PROMPT = tuple(range(200))


def pipeline(costs: dict[Codec, Cost] | None = None, stages: int = 2) -> Pipeline:
    hops = tuple(
        Hop(2 * (i + 1), WIDTH, DType.FLOAT32, COSTS if costs is None else costs)
        for i in range(stages - 1)
    )
    cost = StageCost(((1, 0.01),), 0.001)
    return Pipeline(1, 1, (cost,) * stages, 4096, 512, hops=hops)


def hops(wish: str, *, costs: dict[Codec, Cost] | None = None, stages: int = 2) -> Hops:
    made = Hops(wish)
    made.configure(pipeline(costs, stages))
    made.check_integrity()
    return made


def chosen(made: Hops, index: PrefixIndex | None = None, kv_bits: int = 0) -> Fidelity:
    return made.fidelity(kv_bits, PROMPT, LONG, index or PrefixIndex(), None)


def spans(tokens: int, sequence: bytes = b"a" * 16) -> list[Span]:
    return [Span(sequence, 1, 0, tokens, 0, 1)]


def frames(
    rate: float, latency: float, sizes: Iterator[int], row: int
) -> Iterator[tuple[int, list[StageTrace]]]:
    """One after another through two stages, each only when the one before is back."""
    now = 0.0
    for tokens in sizes:
        sent = now + 0.01
        received = sent + latency + tokens * row / rate
        done = received + 0.01
        yield (
            tokens,
            [
                StageTrace(0, now, now, sent, sent),
                StageTrace(1, received, received, done, done),
            ],
        )
        now = done + 0.001


def teach(made: Hops, fidelity: Fidelity, row: int, rate: float = SLOW) -> None:
    """A prompt and an answer on a slow link."""
    known = {b"a" * 16: fidelity}
    for tokens, traces in frames(rate, 3e-4, iter([CHUNK] * 3 + [1] * 20), row):
        made.observe(spans(tokens), known.get, traces)


@pytest.mark.parametrize("fidelity", [Fidelity(), CODED])
def test_the_speed_of_a_link_is_learnt_whatever_is_sent(fidelity: Fidelity) -> None:
    made = hops("auto")
    teach(made, fidelity, CODED_ROW if fidelity.codecs else ROW)
    (view,) = made.as_dict()
    assert view["bytes_per_second"] == pytest.approx(SLOW, rel=0.03)
    assert view["latency"] == pytest.approx(3e-4, abs=8e-4)


def test_a_frame_that_others_were_before_counts_from_their_arrival() -> None:
    """Chunks of a prompt are sent faster than the link takes them."""
    speed, nbytes = HopSpeed(), 4 * LARGE_BYTES
    arrived = 0.0
    for i in range(9):
        sent = i * 1e-3
        arrived = max(sent, arrived) + nbytes / SLOW
        speed.learn(nbytes, sent, arrived, idle_since=0.0)
    assert speed.speed.bytes_per_second == pytest.approx(SLOW, rel=0.01)


def test_a_frame_that_a_busy_stage_took_late_says_nothing() -> None:
    speed = HopSpeed()
    speed.learn(LARGE_BYTES, 0.0, 9.0, idle_since=9.0)
    assert speed.speed.bytes_per_second == 0.0
    speed.learn(LARGE_BYTES, 9.0, 9.0 + LARGE_BYTES / SLOW, idle_since=9.0)
    assert speed.speed.bytes_per_second == pytest.approx(SLOW)


def test_some_that_were_held_up_do_not_count() -> None:
    speed, rng = HopSpeed(), random.Random(1)
    now = 0.0
    for _ in range(15):
        arrival = now + LARGE_BYTES / SLOW + (1.0 if rng.random() < 0.3 else 0.0)
        speed.learn(LARGE_BYTES, now, arrival, idle_since=now)
        now = arrival + 1.0
    assert speed.speed.bytes_per_second == pytest.approx(SLOW)


def test_as_the_operator_said() -> None:
    assert chosen(hops("raw")) == Fidelity()
    assert chosen(hops("fp8"), kv_bits=8) == Fidelity(8, ((2, Codec.FP8),))
    both = ((2, Codec.INT8), (4, Codec.INT8))
    assert chosen(hops("int8", stages=3)) == Fidelity(0, both)


def test_what_an_end_cannot_write_stays_raw() -> None:
    made = hops("fp8", costs={Codec.INT8: COSTS[Codec.INT8]})
    assert chosen(made) == Fidelity()
    assert (made.as_dict()[0]["codec"], made.as_dict()[0]["possible"]) == ("raw", ["int8"])


def test_auto_is_raw_until_it_knows_the_link_and_then_as_that_is() -> None:
    made = hops("auto")
    assert made.as_dict()[0]["codec"] is None
    assert chosen(made) == Fidelity()
    teach(made, Fidelity(), ROW)
    assert chosen(made) == CODED, "int8 is not for a model that nobody has looked at"
    assert made.as_dict()[0]["codec"] == "fp8"
    fast = hops("auto")
    teach(fast, Fidelity(), ROW, rate=4e9)
    assert chosen(fast) == Fidelity()


def test_frames_of_a_sequence_that_has_ended_teach_nothing() -> None:
    made = hops("auto")
    for tokens, traces in frames(SLOW, 3e-4, iter([CHUNK] * 3), ROW):
        made.observe(spans(tokens), {}.get, traces)
    (view,) = made.as_dict()
    assert (view["bytes_per_second"], view["latency"]) == (None, 0.0)


def test_auto_goes_on_from_what_is_held() -> None:
    slow = hops("auto")
    teach(slow, Fidelity(), ROW)
    index = PrefixIndex()
    index.add(Entry(b"r" * 16, Fidelity(), PROMPT[:90], 1, 0.0, 0.0))
    assert chosen(slow, index) == CODED, "half of it is computed sooner than sent raw"
    index.add(Entry(b"s" * 16, Fidelity(), PROMPT[:190], 1, 0.0, 0.0))
    assert chosen(slow, index) == Fidelity()
    index.add(Entry(b"c" * 16, CODED, PROMPT[:150], 1, 0.0, 0.0))
    assert chosen(slow, index) == CODED


def test_of_equally_good_ones_auto_takes_the_one_that_came_up_first() -> None:
    both = [Fidelity(0, ((layer, Codec.FP8),)) for layer in (2, 4)]
    for order in (both, both[::-1]):
        made, index = hops("auto", stages=3), PrefixIndex()
        for i, fidelity in enumerate(order):
            index.add(Entry(bytes([i]) * 16, fidelity, PROMPT, 1, 0.0, 0.0))
        assert chosen(made, index) == order[0]


def test_auto_does_not_take_what_it_would_never_choose() -> None:
    made, index = hops("auto"), PrefixIndex()
    for i, fidelity in enumerate(
        (Fidelity(8), Fidelity(0, ((3, Codec.FP8),)), Fidelity(0, ((2, Codec.INT8),)))
    ):
        index.add(Entry(bytes([i]) * 16, fidelity, PROMPT, 1, 0.0, 0.0))
    assert chosen(made, index) == Fidelity()
    index.add(Entry(b"c" * 16, CODED, PROMPT, 1, 0.0, 0.0))
    assert chosen(made, index) == CODED


def test_who_asked_for_raw_is_never_given_less() -> None:
    made, index = hops("raw"), PrefixIndex()
    index.add(Entry(b"c" * 16, CODED, PROMPT, 1, 0.0, 0.0))
    assert chosen(made, index) == Fidelity()


def test_another_layout_is_measured_anew() -> None:
    made = hops("auto")
    teach(made, Fidelity(), ROW)
    made.configure(pipeline(stages=3))
    assert chosen(made) == Fidelity()
    assert [view["bytes_per_second"] for view in made.as_dict()] == [None, None]
