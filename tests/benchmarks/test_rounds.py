"""Interleaving and statistics."""

from __future__ import annotations

import pytest

from benchmarks.rounds import Rounds, interleave, percentile, rate, window_rate


def test_every_contestant_runs_in_every_round_and_the_first_one_changes() -> None:
    calls: list[str] = []

    def contestant(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    measured = interleave({n: lambda n=n: contestant(n) for n in "ab"}, 3, warm=1)  # type: ignore[misc]
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in measured.values.items()} == {"a": 3, "b": 3}
    assert measured.values["a"][0] == 3.0  # the warm round is not recorded


def test_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    measured = Rounds({"ours": [10.0, 2.0, 9.0], "theirs": [10.0, 1.0, 10.0]})
    assert measured.ratio("ours", "theirs") == 1.0
    assert measured.best_ratio("ours", "theirs") == 1.0


def test_against_several_the_strongest_by_median_counts() -> None:
    measured = Rounds({"ours": [8.0, 8.0, 8.0], "a": [9.0, 1.0, 1.0], "b": [4.0, 4.0, 4.0]})
    assert measured.ratio("ours", "a", "b") == 2.0
    assert measured.best_ratio("ours", "a", "b") == pytest.approx(8 / 9)


def test_rate_does_not_count_prefill() -> None:
    assert rate([100.0, 100.5, 101.0]) == 2.0
    with pytest.raises(ValueError, match="two tokens"):
        rate([1.0])


def test_window_counts_only_while_all_streams_decode() -> None:
    early, late = [0.0, 1.0, 2.0, 3.0], [1.5, 2.5, 3.5]
    assert window_rate([early, late]) == pytest.approx((2 + 1) / 1.5)
    with pytest.raises(ValueError, match="never decoded at the same time"):
        window_rate([[0.0, 1.0], [2.0, 3.0]])


def test_percentile_is_a_measured_value() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.99) == 5.0
    assert percentile(values, 0.0) == 1.0
