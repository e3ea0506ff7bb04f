"""Sampling options as they come from a socket: only what an engine can use passes."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.sampling import MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, SamplingParams

INF, NAN, HUGE = float("inf"), float("nan"), 10**400


@pytest.mark.parametrize("value", [1.5, 2.0, True, "3", None, [1], -1, NAN, INF, HUGE])
@pytest.mark.parametrize("name", ["top_k", "penalty_window", "seed"])
def test_whole_numbers_are_whole(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        SamplingParams.from_wire({name: value})


@pytest.mark.parametrize("value", [2.5, 1.0, True, "3", [1], -1, MAX_TOP_LOGPROBS + 1, NAN, HUGE])
def test_logprobs_are_a_count_or_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^logprobs is "):
        SamplingParams.from_wire({"logprobs": value})
    assert SamplingParams.from_wire({"logprobs": None}).logprobs is None


@pytest.mark.parametrize("value", [True, "1", None, [1], NAN, INF, -INF, HUGE, -HUGE])
@pytest.mark.parametrize(
    "name",
    [
        "temperature",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
    ],
)
def test_numbers_are_finite(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        SamplingParams.from_wire({name: value})


@pytest.mark.parametrize("token", [INF, NAN, 1.5, 1.0, "3", True, None, -1, 1 << 31, HUGE, [1]])
def test_biased_tokens_are_tokens(token: Any) -> None:
    with pytest.raises(ValueError, match="no token"):
        SamplingParams.from_wire({"logit_bias": [[token, 1]]})


@pytest.mark.parametrize("bias", [INF, -INF, NAN, "1", True, None, HUGE, -HUGE, 1e39])
def test_biases_are_finite(bias: Any) -> None:
    with pytest.raises(ValueError, match="logit_bias of token 1 is"):
        SamplingParams.from_wire({"logit_bias": [[1, bias]]})


@pytest.mark.parametrize("pairs", [None, 5, "ab", {1: 2.0}, [1], [[1]], [[1, 2, 3]], [None]])
def test_a_bias_is_a_list_of_pairs(pairs: Any) -> None:
    with pytest.raises(ValueError, match="list of"):
        SamplingParams.from_wire({"logit_bias": pairs})


def test_only_so_many_biases() -> None:
    with pytest.raises(ValueError, match="entries"):
        SamplingParams.from_wire({"logit_bias": [[t, 1] for t in range(MAX_LOGIT_BIAS + 1)]})


@pytest.mark.parametrize("unknown", [{"topk": 1}, {1: 2}, {1: 2, "topk": 1}, {b"seed": 1}])
def test_unknown_options_are_named(unknown: Any) -> None:
    with pytest.raises(ValueError, match="unknown sampling option"):
        SamplingParams.from_wire(unknown)


def test_what_may_be_comes_back_as_it_went() -> None:
    params = SamplingParams(
        temperature=1,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-1.0,
        frequency_penalty=2,
        penalty_window=0,
        logit_bias={0: -100.0, (1 << 31) - 1: 1e6},
        seed=(1 << 64) - 1,
        logprobs=MAX_TOP_LOGPROBS,
    )
    assert SamplingParams.from_wire(params.to_wire()) == params
    assert SamplingParams.from_wire({}) == SamplingParams()
    assert SamplingParams.from_wire({"logit_bias": [[3, -2]]}).logit_bias == {3: -2.0}
