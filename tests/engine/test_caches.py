"""Trimming a sequence and going on elsewhere is the same as never having been there."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ChunkedKVCache, KVCache, RotatingKVCache

from daemon.engine.caches import Kind, SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.kv import GROWTH, TRIM_SLOTS, FullCache, WindowCache
from daemon.engine.states import StateCache
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Pipe, load_split

WINDOW = 8


def keys_for(start: int, n: int) -> mx.array:
    """[1, 2, n, 4], different at every position."""
    return mx.broadcast_to(mx.arange(start, start + n)[None, None, :, None] + 1.0, (1, 2, n, 4))


def attended(cache: WindowCache | FullCache, n: int) -> list[list[float]]:
    """Which positions (+1) each of the next n queries sees."""
    mask = cache.make_mask(n)
    start = cache.offset
    keys, values = cache.update_and_fetch(keys_for(start, n), -keys_for(start, n))
    assert mx.array_equal(keys, -values)
    seen = keys[0, 0, :, 0].tolist()
    cache.check_integrity()
    mx.eval(cache.arrays())
    if mask is None:
        return [seen] * n
    if isinstance(mask, str):
        return [seen[: len(seen) - n + 1 + i] for i in range(n)]
    return [[s for s, m in zip(seen, row, strict=True) if m] for row in mask.tolist()]


def expected(start: int, n: int, window: int) -> list[list[float]]:
    return [[float(p + 1) for p in range(max(0, q - window + 1), q + 1)]
            for q in range(start, start + n)]  # fmt: skip


@pytest.mark.parametrize("steps", [[1] * 200, [30, *[1] * 150], [7] * 30, [1, 100, 1, 300, 1, 9]])
def test_window_shows_each_query_its_window(steps: list[int]) -> None:
    cache = WindowCache(WINDOW)
    for n in steps:
        assert attended(cache, n) == expected(cache.offset - n, n, WINDOW)
        assert cache.nbytes <= 2 * 2 * 4 * 4 * (WINDOW + TRIM_SLOTS + 2 * GROWTH)


@pytest.mark.parametrize("back", [1, 7, TRIM_SLOTS])
@pytest.mark.parametrize("then", [1, 5, 40])
@pytest.mark.parametrize("first", [[300], [1] * 300, [50, *[3] * 40]])
def test_window_trims_exactly_as_far_as_promised(back: int, then: int, first: list[int]) -> None:
    cache = WindowCache(WINDOW)
    for n in first:
        attended(cache, n)
    length = cache.offset - back
    assert cache.restorable(length)
    cache.trim_to(length)
    cache.check_integrity()
    assert attended(cache, then) == expected(length, then, WINDOW)
    assert attended(cache, 1) == expected(length + then, 1, WINDOW)


def test_window_goes_back_to_exactly_what_a_new_position_sees() -> None:
    cache = WindowCache(WINDOW)
    while cache.first == 0:
        attended(cache, 1)
    length = cache.first + WINDOW - 1
    assert cache.restorable(length)
    assert not cache.restorable(length - 1)
    cache.trim_to(length)
    cache.check_integrity()
    assert attended(cache, 1) == expected(length, 1, WINDOW)


def test_window_refuses_what_it_has_dropped() -> None:
    cache = WindowCache(WINDOW)
    attended(cache, 300)
    assert not cache.restorable(300 - TRIM_SLOTS - 2)
    assert not cache.restorable(0)


@pytest.mark.parametrize("window", [4, WINDOW])
def test_masks_are_those_of_mlx_lm(window: int) -> None:
    """Also where the model asks for a narrower window than the cache has."""
    for ours, theirs in ((WindowCache(WINDOW), RotatingKVCache(WINDOW)), (FullCache(), KVCache())):
        for n in (3, 1, 6, 2, 9):
            for array in (False, True):
                size = window if n > 1 and isinstance(theirs, RotatingKVCache) else None
                mine = ours.make_mask(n, window_size=size, return_array=array)
                other = theirs.make_mask(n, window_size=size, return_array=array)
                assert (
                    mine == other if isinstance(other, str | None) else mx.array_equal(mine, other)
                )
            keys = keys_for(ours.offset, n)
            ours.update_and_fetch(keys, keys)
            theirs.update_and_fetch(keys, keys)


def test_narrower_window_than_the_cache_is_masked_at_a_single_token() -> None:
    cache = WindowCache(WINDOW)
    attended(cache, 20)
    mask = cache.make_mask(1, window_size=3)
    assert mask.tolist() == [False] * (WINDOW - 3) + [True] * 3


def test_full_cache_takes_little_more_than_it_holds() -> None:
    cache = FullCache()
    for _ in range(40):
        attended(cache, 25)
        slots = cache.nbytes // (2 * 2 * 4 * 4)
        assert cache.offset <= slots <= cache.offset * 9 // 8 + 2 * GROWTH


def test_caches_of_one_length_do_not_grow_in_one_step() -> None:
    caches = [FullCache() for _ in range(16)]
    at_once = 0
    for _ in range(600):
        before = [cache.nbytes for cache in caches]
        for cache in caches:
            attended(cache, 1)
        grew = [cache.nbytes > held for cache, held in zip(caches, before, strict=True)]
        at_once = max(at_once, sum(grew) if caches[0].offset > 1 else 0)
    assert at_once <= 3


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3"])
@pytest.mark.parametrize("back", [1, 5, 17])
def test_trim_and_replay_gives_the_same_tokens(
    architecture: str, back: int, tiny: MakeTiny
) -> None:
    """The prompt alone is longer than the sliding windows."""
    model = tiny(architecture, None)
    pipe = Pipe(load_split(model.folder, (0, 1, model.layers)))
    known = [*PROMPT, *model.reference]
    assert pipe.generate(PROMPT, 20) == model.reference[:20]
    pipe.feed([1, 2, 3, 4])  # a draft that nobody wanted
    length = len(PROMPT) + 20 - back
    assert pipe.trim(length) == {length}
    assert pipe.generate(known[length : length + 3], 4) == model.reference[23 - back : 27 - back]


def test_what_cannot_be_restored_is_given_up_by_every_layer(tiny: MakeTiny) -> None:
    model = tiny("gemma3_text", None)
    pipe = Pipe(load_split(model.folder, (0, model.layers)))
    pipe.feed(PROMPT * 12)  # beyond the room of a window, whatever its phase
    assert pipe.caches[0].trim(30) == 0
    assert pipe.caches[0].length == pipe.caches[0].nbytes == 0
    pipe.caches[0].check_integrity()
    pipe.history = []
    assert pipe.generate(PROMPT, 8) == model.reference[:8]


def test_trim_beyond_what_is_held_changes_nothing(tiny: MakeTiny) -> None:
    pipe = Pipe(load_split(tiny("llama", None).folder, (0, 4)))
    pipe.feed(PROMPT)
    assert pipe.caches[0].trim(len(PROMPT) + 5) == len(PROMPT)
    with pytest.raises(CacheError, match="-1"):
        pipe.caches[0].trim(-1)


def test_kind_and_size_are_shown(tiny: MakeTiny) -> None:
    model = tiny("gemma3_text", None)
    stages = load_split(model.folder, (0, 2, 6))
    kinds = [stage.new_cache().kind for stage in stages]
    assert kinds == ["2 × window 8", "2 × full, 2 × window 8"]
    pipe = Pipe(stages)
    sizes = []
    for _ in range(12):  # beyond that room again
        pipe.feed(PROMPT)
        sizes.append(pipe.caches[0].nbytes)
    assert sizes[-1] == sizes[-2]  # a window does not grow for ever
    assert all(a <= b for a, b in pairwise(sizes))


def step(cache: SequenceCache, tokens: list[int]) -> float:
    """One frame through a layer whose state is the sum of the tokens, and through one with keys."""
    cache.begin()
    state = cache.own[0]
    assert isinstance(state, StateCache)
    old = state[0]
    state[0] = mx.array(float(sum(tokens))) + (0.0 if old is None else old)
    full = cache.own[1]
    assert isinstance(full, FullCache)
    full.update_and_fetch(keys_for(full.offset, len(tokens)), keys_for(full.offset, len(tokens)))
    cache.advance(len(tokens))
    mx.eval(cache.arrays())
    cache.check_integrity()
    return float(state[0].item())


def recurrent() -> SequenceCache:
    own = [StateCache(1, frames=3), FullCache()]
    return SequenceCache(own, own, [])


def test_recurrent_state_goes_back_to_the_start_of_a_frame() -> None:
    cache = recurrent()
    assert [step(cache, t) for t in ([5, 6], [7], [8, 9], [1])] == [11.0, 18.0, 35.0, 36.0]
    assert cache.trim(3) == 3
    assert step(cache, [2]) == 20.0
    assert cache.trim(3) == 3
    assert step(cache, [4, 4]) == 26.0
    assert cache.kind == "1 × full, 1 × state"


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_what_broke_off_goes_back_to_where_it_began(layers: int) -> None:
    """However many layers had taken it in; and what comes then is as if nothing had been."""
    cache = recurrent()
    step(cache, [5, 6])
    cache.begin()
    state, full = cache.own
    assert isinstance(state, StateCache)
    assert isinstance(full, FullCache)
    if layers > 0:
        state[0] = mx.array(1000.0)
    if layers > 1:
        full.update_and_fetch(keys_for(50, 3), keys_for(50, 3))
    assert cache.recover(2)
    cache.check_integrity()
    assert step(cache, [7]) == 18.0
    assert full.keys is not None
    assert full.keys[0, 0, :3, 0].tolist() == [1.0, 2.0, 3.0]


def test_a_window_that_has_moved_on_cannot_recover() -> None:
    layer = WindowCache(WINDOW)
    cache = SequenceCache([layer], [layer], [])
    for n in (4, 500):
        layer.update_and_fetch(keys_for(layer.offset, n), keys_for(layer.offset, n))
    assert not cache.recover(4)
    assert cache.recover(0)


@pytest.mark.parametrize("length", [1, 4])
def test_recurrent_state_inside_a_frame_or_too_far_back_is_lost(length: int) -> None:
    cache = recurrent()
    for tokens in ([1], [1], [1, 1, 1], [1], [1]):
        step(cache, tokens)
    assert cache.trim(length) == 0
    assert cache.length == cache.nbytes == 0
    assert step(cache, [3]) == 3.0


def test_unknown_kind_of_cache_is_refused() -> None:
    with pytest.raises(CacheError, match="ChunkedKVCache"):
        Kind.of(ChunkedKVCache(8))
    with pytest.raises(CacheError, match="RotatingKVCache"):
        Kind.of(RotatingKVCache(8, keep=4))
