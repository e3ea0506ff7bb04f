"""`auto`: which codec a hop is given, for links as they are and costs as they were measured."""

from __future__ import annotations

import math

import pytest

from transports.codecs.choice import LEAST_SAVING, Cost, Speed, Traffic, choose, hop_seconds
from transports.codecs.layout import Codec
from transports.frame import DType

# Of a model that is known to suit int8, with 2,048 values a row: as measured on a CPU in NumPy, and
# as a device with far more bandwidth might take.
COSTS = {Codec.FP8: Cost(90e-6, 11e-6), Codec.INT8: Cost(85e-6, 9e-6)}
FAST = {Codec.FP8: Cost(20e-6, 0.1e-6), Codec.INT8: Cost(25e-6, 0.15e-6)}
# Bytes per second and seconds one way, as TCP brings them.
LOOPBACK = Speed(2.0e9, 60e-6)
THUNDERBOLT = Speed(4.0e9, 50e-6)
TEN_GIGABIT = Speed(1.15e9, 80e-6)
GIGABIT = Speed(117e6, 120e-6)
FAST_ETHERNET = Speed(11.7e6, 200e-6)
CHAT = Traffic(prompt_tokens=2000, chunk_tokens=512, output_tokens=200)
LONG = Traffic(prompt_tokens=10, chunk_tokens=512, output_tokens=4000)
F32, BF16 = DType.FLOAT32, DType.BFLOAT16


@pytest.mark.parametrize(
    ("speed", "dtype", "traffic", "costs", "wanted"),
    [
        (LOOPBACK, F32, CHAT, COSTS, Codec.RAW),
        (LOOPBACK, BF16, CHAT, COSTS, Codec.RAW),
        (THUNDERBOLT, F32, CHAT, COSTS, Codec.RAW),
        (THUNDERBOLT, BF16, CHAT, FAST, Codec.RAW),
        (TEN_GIGABIT, F32, CHAT, COSTS, Codec.RAW),
        (TEN_GIGABIT, F32, CHAT, FAST, Codec.FP8),  # 23 %; int8 saves 19
        (TEN_GIGABIT, BF16, LONG, FAST, Codec.RAW),
        (GIGABIT, F32, CHAT, COSTS, Codec.INT8),
        (GIGABIT, F32, LONG, COSTS, Codec.RAW),  # a step of 8 KB: coding takes what it saves
        (GIGABIT, BF16, LONG, COSTS, Codec.RAW),
        (FAST_ETHERNET, F32, CHAT, COSTS, Codec.INT8),
        (FAST_ETHERNET, F32, LONG, COSTS, Codec.INT8),
        (FAST_ETHERNET, BF16, CHAT, COSTS, Codec.INT8),
    ],
)
def test_links(
    speed: Speed, dtype: DType, traffic: Traffic, costs: dict[Codec, Cost], wanted: Codec
) -> None:
    assert choose(speed, 2048, dtype, traffic, costs) is wanted


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_an_unmeasured_link_stays_raw(rate: float) -> None:
    assert choose(Speed(rate, 0.0), 2048, F32, CHAT, COSTS) is Codec.RAW


def test_a_width_that_cannot_be_written_stays_raw() -> None:
    assert choose(FAST_ETHERNET, 2040, F32, CHAT, COSTS) is Codec.RAW


@pytest.mark.parametrize("speed", [LOOPBACK, THUNDERBOLT, TEN_GIGABIT, GIGABIT, FAST_ETHERNET])
def test_int8_is_never_chosen_for_a_model_that_nobody_knows(speed: Speed) -> None:
    slow = speed in (GIGABIT, FAST_ETHERNET)
    only = {Codec.FP8: COSTS[Codec.FP8]}
    assert choose(speed, 2048, F32, CHAT, only) is (Codec.FP8 if slow else Codec.RAW)
    assert choose(speed, 2048, F32, CHAT, {}) is Codec.RAW


def test_fp8_where_int8_takes_clearly_longer() -> None:
    slow = {**FAST, Codec.INT8: Cost(25e-6, 5e-6)}
    assert choose(GIGABIT, 2048, BF16, CHAT, slow) is Codec.FP8


def test_what_is_chosen_saves_what_it_must() -> None:
    for dtype in (F32, BF16):
        for exponent in range(20, 33):
            for traffic in (CHAT, LONG):
                speed = Speed(2.0**exponent, 1e-4)
                found = choose(speed, 2048, dtype, traffic, COSTS)
                raw = hop_seconds(Codec.RAW, speed, 2048, dtype, traffic, None)
                taken = hop_seconds(found, speed, 2048, dtype, traffic, COSTS.get(found))
                assert found is Codec.RAW or taken <= (1 - LEAST_SAVING) * raw


def test_frames_of_a_sequence() -> None:
    assert Traffic(1030, 512, 7).frames() == [(512, 2), (6, 1), (1, 7)]
    assert Traffic(1024, 512, 8, together=4).frames() == [(512, 2), (0, 0), (4, 2)]


def test_sequences_that_share_frames_share_what_a_frame_costs() -> None:
    alone, shared = Traffic(0, 512, 100), Traffic(0, 512, 100, together=8)
    args = (GIGABIT, 2048, F32)
    assert choose(*args, alone, FAST) is Codec.RAW
    assert choose(*args, shared, FAST) is Codec.INT8
    assert hop_seconds(Codec.INT8, *args, shared, FAST[Codec.INT8]) < hop_seconds(
        Codec.INT8, *args, alone, FAST[Codec.INT8]
    )
