"""Any history gives the tokens of a single process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from daemon.scheduler.request import FinishReason
from daemon.supervisor.policy import RestartRules
from tests.simulator.faults import (
    ALL,
    CALM,
    COORDINATORS,
    LINKS,
    LOSSES,
    RESTARTS,
    STAGES,
    STORM,
    Fault,
    Rates,
)
from tests.simulator.world import PLENTY, World

KINDS = {
    "calm": CALM,
    "losses": LOSSES,
    "links": LINKS,
    "storm": STORM,
    "restarts": RESTARTS,
    "stages": STAGES,
    "all": ALL,
}


@contextmanager
def named(seed: int) -> Iterator[None]:
    """Whatever goes wrong inside says which history it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the history of seed {seed}")
        raise


def some(first: int, few: int, many: int) -> pytest.MarkDecorator:
    """Few histories in every run of the tests, many in the soak."""
    more = pytest.param(range(first, first + many), marks=pytest.mark.soak)
    return pytest.mark.parametrize("seeds", [range(first, first + few), more], ids=str)


def run(
    seeds: range,
    rates: Rates,
    wire: bool = False,
    crowd: bool = False,
    alike: bool = False,
    guessing: bool = False,
) -> Counter[str]:
    """What happened, all histories together."""
    happened: Counter[str] = Counter()
    for seed in seeds:
        with named(seed):
            sequences = 6 + seed % 7 if crowd else 1 + seed % 7
            world = World(
                seed,
                rates,
                sequences,
                1 + seed % 3,
                wire=wire,
                crowd=crowd,
                alike=alike,
                guessing=guessing,
            )
            world.run()
        happened["faults"] += world.faults.total()
        happened["followed"] += len(world.followed)
        happened += world.scheduler.residency.counts
        happened.update({f"refills {k}": n for k, n in world.scheduler.status()["refills"].items()})
        guesses = world.scheduler.status()["speculation"]
        happened.update({name: guesses[name] for name in ("right", "wrong", "cancelled")})
    return happened


@pytest.mark.parametrize("kind", KINDS)
def test_any_history_gives_the_tokens_of_one_process(kind: str) -> None:
    happened = run(range(60), KINDS[kind])
    assert (happened["faults"] > 60) == (kind != "calm"), "the faults did not happen"
    assert happened["hits"] > 5, "nothing was reused"


@some(100, 12, 25)
@pytest.mark.parametrize("kind", ["calm", "losses", "all"])
def test_where_memory_is_short_no_token_is_lost_or_doubled(kind: str, seeds: range) -> None:
    happened = run(seeds, KINDS[kind], crowd=True)
    least = min(happened["preemptions"], happened["evictions"], happened["hits"])
    assert least >= len(seeds) // 5


@some(200, 15, 35)
@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("kind", ["calm", "losses", "all"])
def test_those_that_begin_alike_never_wait_for_nothing(
    kind: str, crowd: bool, seeds: range
) -> None:
    happened = run(seeds, KINDS[kind], crowd=crowd, alike=True)
    assert happened["followed"] > 6 / 7 * len(seeds)


@some(200, 25, 50)
@pytest.mark.parametrize("kind", ["calm", "losses", "all"])
def test_guessing_changes_no_token(kind: str, seeds: range) -> None:
    single = len(seeds) * 4 // 5
    happened = run(seeds[:single], KINDS[kind], guessing=True)
    assert min(happened["right"], happened["wrong"], happened["cancelled"]) >= single / 2
    run(seeds[single:], KINDS[kind], crowd=True, guessing=True)


@some(0, 20, 50)
@pytest.mark.parametrize("guessing", [False, True])
def test_stages_that_restart_are_refilled(guessing: bool, seeds: range) -> None:
    happened: Counter[str] = Counter()
    for seed in seeds:
        with named(seed):
            kinds = {"guessing": guessing, "wire": seed % 5 == 0}
            world = World(seed, RESTARTS, 4 + seed % 5, 2 + seed % 2, longest=100, **kinds)
            world.run()
        happened.update(world.scheduler.status()["refills"])
    assert happened["begun"] > 1.2 * len(seeds)
    assert happened["tokens"] > 12 * len(seeds)
    assert 0 < happened["given up"] < happened["begun"] / 2, "some have a hole, most have none"


@some(200, 30, 60)
def test_a_lost_frame_costs_no_more_than_what_was_in_it(seeds: range) -> None:
    """Guesses of a dead attempt that stages still hold are no reason to begin again."""
    lost = 0
    for seed in seeds:
        with named(seed):
            rates = Rates(link=0.1, kinds=(Fault.DROP,))
            world = World(seed, rates, 1, 2 + seed % 2, guessing=True, longest=120)
            world.run()
            assert world.again == 0
            lost += world.scheduler.reissues["missing"]
    assert lost > len(seeds) / 3


def test_another_coordinator_goes_on_where_the_one_before_was_killed() -> None:
    """Nothing is computed again that the stages hold, but for what ran when memory was short."""
    deaths, inherited = 0, 0
    for seed in range(300, 350):
        with named(seed):
            guessing = bool(seed % 2)
            world = World(seed, COORDINATORS, 1 + seed % 7, 1 + seed % 3, guessing=guessing)
            if world.memory.budget_bytes == PLENTY:
                world.run()
                assert world.again == 0
                deaths += world.faults["coordinator"]
                inherited += sum(world.inherited.values())
    assert min(deaths, inherited) > 15
    run(range(380, 388), COORDINATORS, crowd=True)


def test_histories_survive_the_wire() -> None:
    run(range(60, 80), ALL, wire=True, guessing=True)


@pytest.mark.parametrize("rates", [CALM, LOSSES], ids=["calm", "losses"])
def test_a_request_that_ends_stages_ends_itself_and_no_other(rates: Rates) -> None:
    ended = 0
    for seed in range(40):
        with named(seed):
            world = World(seed, rates, sequences=1 + seed % 7, stages=1 + seed % 3, poison=True)
            world.run()
            assert world.poison is not None
            end = world.finished[world.poison[0]]
            if rates is CALM:  # a chunk that is cut otherwise the next time may be progress
                assert len(world.poisoned) <= RestartRules().burst, "a supervisor gives up"
            if end.reason is not FinishReason.CANCELLED:
                assert end.reason is FinishReason.FAILED
                assert "the pipeline went down 5 times" in end.error
                ended += 1
    assert ended > 20


@pytest.mark.parametrize("rates", [CALM, LOSSES], ids=["calm", "losses"])
def test_a_request_that_fails_with_others_ends_itself_and_no_other(rates: Rates) -> None:
    failed = 0
    for seed in range(60):
        with named(seed):
            kinds = {"poison": True, "raises": True, "crowd": seed % 2 == 0}
            world = World(seed, rates, sequences=1 + seed % 7, stages=1 + seed % 3, **kinds)
            world.run()
            assert world.poison is not None
            for sequence, end in world.finished.items():
                if end.reason is FinishReason.FAILED:
                    assert sequence == world.poison[0]
                    assert "failed 3 times" in end.error
                    failed += 1
    assert failed > 20


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", range(10))
def test_thousands_of_histories(kind: str, block: int) -> None:
    seeds = range(1000 + 300 * block, 1300 + 300 * block)
    run(seeds, KINDS[kind], guessing=bool(block % 2))


@pytest.mark.soak
@pytest.mark.parametrize("guessing", [False, True])
@pytest.mark.parametrize("block", range(10))
def test_thousands_of_restarts(block: int, guessing: bool) -> None:
    for seed in range(1000 + 200 * block, 1200 + 200 * block):
        with named(seed):
            World(seed, RESTARTS, 4 + seed % 5, 2 + seed % 3, longest=100, guessing=guessing).run()


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", range(10))
def test_thousands_of_crowds(kind: str, block: int) -> None:
    run(range(100 * block, 100 * block + 100), KINDS[kind], crowd=True, guessing=bool(block % 2))


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", range(10))
def test_thousands_that_begin_alike(kind: str, block: int) -> None:
    run(range(100 * block, 100 * block + 100), KINDS[kind], crowd=block % 2 == 0, alike=True)
