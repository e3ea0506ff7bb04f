"""From tokens to text: stop strings, arguments, terms, queries."""

from __future__ import annotations

from typing import Any

import pytest

from daemon import messages as msg
from daemon.coordinator.arguments import BadArguments, Generate
from daemon.coordinator.queries import ANSWER_SECONDS, Queries
from daemon.coordinator.stop import StopMatcher


def feed(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        text, stopped = matcher.push(piece)
        shown += text
        if stopped:
            return shown, True
    return shown + matcher.flush(), False


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "stopped"),
    [
        ([], ["a", "b"], "ab", False),
        (["END"], ["one E", "N", "D two"], "one ", True),
        (["END"], ["one E", "N", "d"], "one ENd", False),
        (["aab"], ["aa", "ab", "c"], "a", True),
        (["xyz", "b"], ["abc"], "a", True),
        (["\n\n"], ["x\n", "y\n", "\n"], "x\ny", True),
        (["é"], ["caf", "é!"], "caf", True),
    ],
)
def test_stop_strings_may_span_pieces(
    stops: list[str], pieces: list[str], shown: str, stopped: bool
) -> None:
    assert feed(stops, pieces) == (shown, stopped)


def test_nothing_that_may_become_a_stop_string_is_shown() -> None:
    matcher = StopMatcher(["<end>"])
    assert matcher.push("text <e") == ("text ", False)
    assert matcher.push("n") == ("", False)
    assert matcher.push("x") == ("<enx", False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({}, "either"),
        ({"prompt": "a", "messages": []}, "either"),
        ({"prompt": 3}, "prompt is int"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens"),
        ({"prompt": "a", "stop": [""]}, "stop"),
        ({"prompt": "a", "sampling": {"temperature": -1}}, "temperature"),
        ({"prompt": "a", "sampling": {"heat": 1}}, "heat"),
        ({"prompt": "a", "sampling": {"logit_bias": [[1]]}}, "logit_bias"),
        ({"prompt": "a", "kv_bits": 3}, "kv_bits is 3, must be 8, 4 or 0"),
        ({"prompt": "a", "kv_bits": "8"}, "kv_bits is str"),
        ({"prompt": "a", "more": 1}, "more"),
        ({"messages": [{"role": "user"}]}, "message"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(BadArguments, match=word):
        Generate.parse(arguments)


def test_what_is_not_said_is_left_to_the_conversation() -> None:
    plain = Generate.parse({"prompt": "a", "kv_bits": None})
    assert (plain.kv_bits, plain.raw, plain.conversation) == (None, None, None)
    told = Generate.parse({"prompt": "a", "kv_bits": 4, "raw": False, "conversation": "a.b-C_1"})
    assert (told.kv_bits, told.raw, told.conversation) == (4, False, "a.b-C_1")


def test_a_query_ends_when_all_have_answered_or_time_is_up() -> None:
    told: list[tuple[list[str], list[str]]] = []
    queries = Queries()

    def ended(reports: list[Any], silent: list[str]) -> None:
        told.append(([report.node for report in reports], silent))

    number = queries.ask(msg.LogsReport, {"a", "b"}, 0.0, ended)
    queries.report(msg.LogsReport(number, "a", []))
    queries.report(msg.LogsReport(number, "a", []))
    queries.report(msg.LogsReport(number + 1, "b", []))
    queries.report(msg.KvReport(number, "b", []))
    assert not told
    queries.tick(ANSWER_SECONDS)
    assert told == [(["a"], ["b"])]
    queries.report(msg.LogsReport(number, "b", []))
    assert len(told) == 1


def test_who_cannot_be_asked_is_silent_at_once() -> None:
    told: list[tuple[list[Any], list[str]]] = []
    queries = Queries()
    number = queries.ask(msg.LogsReport, {"a", "b"}, 0.0, lambda *what: told.append(what))
    queries.unreachable(number, "b")
    queries.unreachable(number, "b")
    assert not told
    queries.unreachable(number, "a")
    queries.unreachable(number, "a")
    assert told == [([], ["a", "b"])]
