"""A round ends once, whatever its end leads to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from daemon.coordinator.rounds import Rounds


def test_each_ends_with_what_was_said() -> None:
    rounds: Rounds[str] = Rounds(7)
    ends: list[tuple[Mapping[str, str], Collection[str], bool]] = []
    number = rounds.begin(["a", "b"], 10.0, lambda *end: ends.append(end))
    rounds.report(number, "stranger", "x")
    rounds.report(number + 1, "a", "x")
    rounds.report(number, "a", "first")
    rounds.report(number, "a", "twice")
    rounds.tick(9.9)
    assert not ends
    rounds.tick(10.0)
    rounds.report(number, "b", "late")
    rounds.give_up()
    assert ends == [({"a": "first"}, ["b"], False)]
    rounds.begin(["a"], 10.0, lambda *end: ends.append(end))
    rounds.give_up()
    assert ends[1:] == [({}, ["a"], True)]


def test_the_end_of_one_may_be_the_end_of_all() -> None:
    rounds: Rounds[str] = Rounds(0)
    ends: list[str] = []

    def begin(name: str) -> None:
        def ended(reports: Mapping[str, str], silent: Collection[str], given_up: bool) -> None:
            ends.append(name)
            rounds.give_up()  # as when sending what follows brings the pipeline down

        rounds.begin(["a"], 10.0, ended)

    for end in (rounds.give_up, lambda: rounds.tick(10.0)):
        for name in ("one", "two", "three"):
            begin(name)
        end()
        assert sorted(ends) == ["one", "three", "two"]
        ends.clear()
