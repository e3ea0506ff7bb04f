"""A fork is a sequence computed from its start: neither side sees what the other writes."""

from __future__ import annotations

import mlx.core as mx
import pytest

from daemon.engine.kv import TRIM_SLOTS, FullCache, WindowCache
from tests.engine.conftest import MakeTiny
from tests.engine.test_caches import recurrent, step
from tests.engine.tiny import PROMPT, Pipe, load_split

WINDOW = 8


def write(cache: FullCache | WindowCache, values: list[float]) -> list[float]:
    """Append a position per value; returns what the last of them sees."""
    keys = mx.broadcast_to(mx.array(values)[None, None, :, None], (1, 1, len(values), 2))
    seen, also = cache.update_and_fetch(keys, keys)
    cache.check_integrity()
    assert mx.array_equal(seen, also)
    shown: list[float] = seen[0, 0, :, 0].tolist()
    return shown[-WINDOW:] if isinstance(cache, WindowCache) else shown


@pytest.mark.parametrize("length", [250, 300])
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("forked_first", [False, True])
def test_neither_side_sees_the_others_writes(
    length: int, windowed: bool, forked_first: bool
) -> None:
    source = WindowCache(WINDOW) if windowed else FullCache()
    for value in range(300):
        write(source, [float(value)])
    fork = source.fork(length)
    sides = [(source, list(range(300)), 1000.0), (fork, list(range(length)), 2000.0)]
    for n in range(100):  # long enough for either to move its buffer
        for cache, known, value in reversed(sides) if forked_first else sides:
            known.append(value + n)
            assert write(cache, [value + n]) == (known[-WINDOW:] if windowed else known)


def test_a_window_is_forked_only_where_it_knows_what_it_held() -> None:
    source = WindowCache(WINDOW)
    write(source, [float(n) for n in range(300)])
    assert source.restorable(300 - TRIM_SLOTS)
    assert not source.restorable(200)


def test_a_state_is_forked_at_the_start_of_a_frame() -> None:
    cache = recurrent()
    assert [step(cache, t) for t in ([5, 6], [7], [8, 9], [1])] == [11.0, 18.0, 35.0, 36.0]
    fork = cache.fork(3)
    assert fork is not None
    assert fork.length == 3
    assert step(fork, [100]) == 118.0
    assert step(cache, [1]) == 37.0
    assert fork.trim(3) == 3
    assert step(fork, [2]) == 20.0
    assert cache.fork(4) is None, "inside a frame"
    assert cache.fork(1) is None, "too far back"
    whole = cache.fork(99)
    assert whole is not None
    assert whole.length == cache.length


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3"])
@pytest.mark.parametrize("back", [0, 1, 30])
def test_forks_of_a_model_compute_what_one_sequence_would(
    architecture: str, back: int, tiny: MakeTiny
) -> None:
    """Many forks of one prompt, and the prompt's own sequence, in turns."""
    model = tiny(architecture, None)
    stages = load_split(model.folder, (0, 1, model.layers))
    prompt = PROMPT * 5
    shared = len(prompt) - back
    source = Pipe(stages)
    source.feed(prompt, 0)
    forks = [source.fork(shared), source.fork(shared), source.fork(shared).fork(shared - 2)]
    pipes = [source, *forks]
    turns = {n: ([n + 1, 50 + n], [90 - n]) for n in range(len(pipes))}
    told: dict[int, list[int]] = {n: [] for n in turns}
    for part in range(2):
        for n, pipe in enumerate(pipes):
            told[n] += pipe.feed(turns[n][part]).tokens
            told[n] += pipe.feed(told[n][-1:]).tokens
    for n, pipe in enumerate(pipes):
        start = len(prompt) if n == 0 else shared - 2 * (n == 3)
        alone = Pipe(stages)
        alone.feed(prompt[:start], 0)
        expected: list[int] = []
        for part in range(2):
            expected += alone.feed(turns[n][part]).tokens
            expected += alone.feed(expected[-1:]).tokens
        assert told[n] == expected
        assert pipe.history == alone.history


def test_what_a_model_no_longer_holds_is_not_forked(tiny: MakeTiny) -> None:
    model = tiny("gemma3_text", None)
    pipe = Pipe(load_split(model.folder, (0, model.layers)))
    pipe.feed(PROMPT * 20)
    assert pipe.caches[0].fork(30) is None
    assert pipe.caches[0].length == len(PROMPT) * 20, "the source is left as it was"
