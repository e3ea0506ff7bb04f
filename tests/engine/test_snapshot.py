"""A sequence that was saved goes on, under any split, as if it had never been away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from daemon.engine.caches import SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.kv import FullCache, WindowCache
from daemon.engine.snapshot import forms as forms_of
from daemon.engine.snapshot import put, take
from daemon.engine.states import StateCache
from daemon.fidelity import Fidelity
from daemon.history import History
from daemon.storage.content import LayerBytes, LayerParts
from daemon.storage.errors import Foreign
from daemon.storage.folder import KvFolder
from daemon.storage.manifest import Identity
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Pipe, load_split
from tests.storage.content import DIGEST, LAYERS, read, run


def save(pipe: Pipe, length: int, folder: KvFolder, kv_bits: int = 0) -> Identity:
    tokens = pipe.history[:length]
    identity = Identity(DIGEST, Fidelity(kv_bits), length, History(tokens).hash_at(length))
    for stage, cache in zip(pipe.stages, pipe.caches, strict=True):
        run(folder.save(identity, stage.layers, tokens, take(cache, length)))
    return identity


def restore(pipe: Pipe, identity: Identity, folder: KvFolder) -> None:
    """From whichever files have the layers."""
    files = folder.find(DIGEST, identity.entry)
    for stage, cache in zip(pipe.stages, pipe.caches, strict=True):
        layers = range(stage.layers.start, stage.layers.end)
        for layer, form, own in zip(
            layers, stage.kv_forms(identity.fidelity.kv_bits), cache.own, strict=True
        ):
            path = next(p for r, p in files.items() if r.start <= layer < r.end)
            put(own, read(path, layer, form), identity.tokens)
        cache.restored(identity.tokens)
        cache.check_integrity()


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3"])
@pytest.mark.parametrize("cuts", [(0, 3), (0, 1, 2, 3)])
def test_tokens_after_a_restore_are_the_reference_s(
    architecture: str, cuts: tuple[int, ...], tiny: MakeTiny, tmp_path: Path
) -> None:
    model = tiny(architecture, None)
    cuts = (*cuts[:-1], model.layers)
    known = [*PROMPT, *model.reference]
    first = Pipe(load_split(model.folder, (0, 2, model.layers)))
    assert first.generate(PROMPT, 12) == model.reference[:12]
    folder = KvFolder(tmp_path, 1 << 30)
    for length in (len(first.history), len(first.history) - 4):
        identity = save(first, length, folder)
        second = Pipe(load_split(model.folder, cuts))
        restore(second, identity, folder)
        second.history = known[:length]
        assert second.generate(known[length : length + 1], 16) == tuple(
            known[length + 1 : length + 17]
        )


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text"])
def test_quantised_keys_come_back_bit_for_bit(
    architecture: str, bits: int, tiny: MakeTiny, tmp_path: Path
) -> None:
    model = tiny(architecture, None)
    first = Pipe(load_split(model.folder, (0, 2, model.layers)), kv_bits=bits)
    first.generate(PROMPT, 5)
    length = len(first.history) - 2
    folder = KvFolder(tmp_path, 1 << 30)
    identity = save(first, length, folder, bits)
    second = Pipe(load_split(model.folder, (0, model.layers)), kv_bits=bits)
    restore(second, identity, folder)
    kinds = {parts.kind for parts in take(second.caches[0], length)}
    assert f"full {bits}-bit" in kinds
    second.history = first.history[:length]
    assert first.trim(length) == {length}
    held = [content(take(cache, length)) for cache in first.caches]
    assert content(take(second.caches[0], length)) == [data for part in held for data in part]
    assert second.generate([7, 8, 9], 12) == first.generate([7, 8, 9], 12)
    exact = Pipe(load_split(model.folder, (0, 2, model.layers)))
    with pytest.raises(Foreign, match="bit"):
        restore(exact, replace(identity, fidelity=Fidelity()), folder_with(folder, identity))


def folder_with(folder: KvFolder, identity: Identity) -> KvFolder:
    """The files also stand where those of exact KV would."""
    theirs = folder.path(identity, LAYERS).parent
    theirs.rename(folder.path(replace(identity, fidelity=Fidelity()), LAYERS).parent)
    return folder


@pytest.mark.parametrize(("chunks", "wanted"), [(6, (28, 72)), (14, None)])
def test_a_long_window_is_saved_as_short_as_it_may_be(
    chunks: int, wanted: tuple[int, int] | None, tiny: MakeTiny, tmp_path: Path
) -> None:
    """Before the window has dropped anything, and after."""
    model = tiny("gemma3_text", None)
    first = Pipe(load_split(model.folder, (0, model.layers)))
    for _ in range(chunks):
        first.feed(PROMPT)
    length = len(first.history) - 20
    identity = save(first, length, KvFolder(tmp_path, 1 << 30))
    windows = [p for p in take(first.caches[0], length) if p.kind == "window 8"]
    spans = {(p.first, p.arrays[0].array.shape[2]) for p in windows}
    assert all(n <= 72 and start + n == length for start, n in spans)
    assert wanted is None or spans == {wanted}
    second = Pipe(load_split(model.folder, (0, 2, model.layers)))
    restore(second, identity, KvFolder(tmp_path, 1 << 30))
    assert first.trim(length) == second.trim(length) == {length}
    second.history = list(first.history)
    for back in (0, 30):
        assert first.trim(length - back) == second.trim(length - back) == {length - back}
        assert first.feed(PROMPT).tokens == second.feed(PROMPT).tokens


def test_what_was_taken_does_not_change_when_the_cache_goes_on(tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    pipe = Pipe(load_split(model.folder, (0, model.layers)))
    pipe.feed(PROMPT)
    length = len(pipe.history)
    taken = take(pipe.caches[0], length)
    before = content(taken)
    pipe.trim(length - 8)
    pipe.feed([1, 2, 3])
    pipe.feed([4])
    assert content(taken) == before
    assert content(take(pipe.caches[0], length - 8)) != before


def content(parts: list[LayerParts]) -> list[bytes]:
    return [b"".join(map(bytes, array.parts)) for layer in parts for array in layer.arrays]


def as_read(parts: LayerParts) -> LayerBytes:
    arrays = [(a.array, memoryview(b"".join(map(bytes, a.parts)))) for a in parts.arrays]
    return LayerBytes(parts.first, tuple(arrays))


def mixed() -> SequenceCache:
    own = [StateCache(2, frames=3), FullCache(), WindowCache(4)]
    return SequenceCache(own, own, [])


def step(cache: SequenceCache, n: int) -> None:
    cache.begin()
    state, full, window = cache.own
    assert isinstance(state, StateCache)
    assert isinstance(full, FullCache)
    assert isinstance(window, WindowCache)
    old = state[0] if state[0] is not None else mx.zeros((1, 3))
    state[0] = old + n
    state[1] = mx.ones((1, 2, 2), mx.bfloat16) * n
    new = mx.random.normal((1, 2, n, 4)).astype(mx.float16)
    full.update_and_fetch(new, -new)
    window.update_and_fetch(new, -new)
    cache.advance(n)
    mx.eval(cache.arrays())


def test_states_and_all_types_come_back_bit_for_bit() -> None:
    cache = mixed()
    for n in (5, 1, 2):
        step(cache, n)
    fresh = mixed()
    for layer, parts in zip(fresh.own, take(cache, 8), strict=True):
        put(layer, as_read(parts), 8)
    fresh.restored(8)
    fresh.check_integrity()
    assert forms_of(fresh) == forms_of(cache)
    for one, other in zip(fresh.arrays(), cache.arrays(), strict=True):
        assert mx.array_equal(one, other[:, :, :8] if other.ndim == 4 else other)
    step(fresh, 1)
    assert fresh.length == 9


def test_what_cannot_be_cut_is_not_saved() -> None:
    cache = mixed()
    for n in (5, 1, 2):
        step(cache, n)
    with pytest.raises(CacheError, match="state"):
        take(cache, 7)
    with pytest.raises(CacheError, match="9 positions are wanted, 8 are held"):
        take(cache, 9)
    with pytest.raises(CacheError, match="0 positions"):
        take(cache, 0)
