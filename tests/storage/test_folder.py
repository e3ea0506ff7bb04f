"""Files are written whole or not at all, found again, refused when damaged, and kept in bounds."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from daemon.layers import LayerRange
from daemon.storage import manifest as manifest_module
from daemon.storage.content import HASHED, QUIET_SLICE, SYNCED, read_manifest, read_tokens
from daemon.storage.errors import CannotSave, Damaged, Foreign, StorageError
from daemon.storage.folder import KvFolder, LocalFile
from daemon.storage.form import ArrayForm, LayerForm
from daemon.storage.manifest import MAX_HEADER_BYTES
from tests.storage.content import (
    DIGEST,
    FULL,
    LAYERS,
    TOKENS,
    identity,
    layer_bytes,
    parts,
    read,
    run,
    save,
)

MANY = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> KvFolder:
    return KvFolder(tmp_path / "kv", MANY)


def names(folder: KvFolder) -> set[str]:
    return {path.name for path in folder.root.rglob("*") if path.is_file()}


def test_what_is_saved_is_read_again(folder: KvFolder) -> None:
    path = save(folder)
    assert path.parent.name == identity().entry
    assert path.parent.parent.name == DIGEST[:16]
    assert names(folder) == {"layers-2-5.safetensors"}
    assert folder.root.stat().st_mode & 0o777 == 0o700
    for layer in range(2, 5):
        got = read(path, layer)
        assert [bytes(data) for _, data in got.arrays] == layer_bytes(layer)
    (stored,) = run(folder.scan(DIGEST, 10))
    assert (stored.identity, stored.layers) == (identity(), LAYERS)
    assert (tuple(stored.tokens), stored.nbytes) == (TOKENS, path.stat().st_size)


def test_it_is_a_safetensors_file(folder: KvFolder) -> None:
    arrays = mx.load(str(save(folder)))
    assert isinstance(arrays, dict)
    assert arrays["tokens"].tolist() == list(TOKENS)
    assert arrays["layers.3.keys"].shape == (1, 2, len(TOKENS), 8)
    assert bytes(memoryview(arrays["layers.4.values"].view(mx.uint8))) == layer_bytes(4)[1]


def test_writing_goes_in_small_slices(folder: KvFolder) -> None:
    tokens = tuple(range(60000))
    big = parts(LayerRange(0, 1), len(tokens))
    steps = folder.save(identity(tokens), LayerRange(0, 1), tokens, big)
    assert sum(1 for _ in steps) >= big[0].nbytes // QUIET_SLICE


def test_a_large_file_goes_to_the_disk_bit_by_bit(
    folder: KvFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never all of it in one step, while nobody is served."""
    tokens, fresh, asked = tuple(range(500_000)), [], os.fsync

    def noted(fd: int) -> None:
        fresh.append(os.fstat(fd).st_size - sum(fresh))
        asked(fd)

    monkeypatch.setattr(os, "fsync", noted)
    path = save(folder, tokens, LayerRange(0, 1))
    written, _folder = fresh[:-1], fresh[-1]
    assert sum(written) == path.stat().st_size > 3 * SYNCED
    assert max(written) < SYNCED + 2 * QUIET_SLICE + 4 * len(tokens)


def test_a_long_prompt_is_hashed_in_steps(folder: KvFolder) -> None:
    file = LocalFile(save(folder, tuple(range(32_000)), LayerRange(0, 1)))
    manifest = run(read_manifest(file))
    assert sum(1 for _ in read_tokens(file, manifest)) > 32_000 // HASHED
    file.close()


def test_one_byte_anywhere_is_noticed(folder: KvFolder) -> None:
    """Either when the file is looked at or when the layer is read; nothing passes."""
    path = save(folder)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises((Damaged, Foreign)):
            look_and_read(folder, path)


def look_and_read(folder: KvFolder, path: Path) -> None:
    run(folder._look(path, DIGEST, identity().entry, LAYERS))
    for layer in range(LAYERS.start, LAYERS.end):
        read(path, layer)


def header_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def sealed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header as somebody would who knows how to seal it."""
    data, body = path.read_bytes(), header_of(path)
    header = json.loads(body)
    change(header)
    fresh = json.dumps(header, separators=(",", ":")).encode()
    fresh = manifest_module._sealed(fresh + b" " * (-len(fresh) % 8))
    path.write_bytes(len(fresh).to_bytes(8, "little") + fresh + data[8 + len(body) :])


def about(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change the manifest in the header."""

    def changed(header: dict[str, Any]) -> None:
        told = json.loads(header["__metadata__"]["manifest"])
        change(told)
        header["__metadata__"]["manifest"] = json.dumps(told, separators=(",", ":"))

    return lambda path: sealed(path, changed)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def huge_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write((1 << 62).to_bytes(8, "little"))


def long_header(path: Path) -> None:
    """As long as the file allows, but longer than any of ours."""
    path.write_bytes((2 * MAX_HEADER_BYTES).to_bytes(8, "little") + bytes(3 * MAX_HEADER_BYTES))


def deep_header(path: Path) -> None:
    body = manifest_module._START + b"0" * 8 + b'"' + b"[" * 100_000
    body = manifest_module._sealed(body + b" " * (-len(body) % 8))
    path.write_bytes(len(body).to_bytes(8, "little") + body)


def other_safetensors(path: Path) -> None:
    mx.save_safetensors(str(path), {"layers.2.keys": mx.zeros((1, 2, 20, 8))})


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    """Opening one would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "bytes instead of"),
    "longer": (lengthen, "bytes instead of"),
    "empty": (lambda path: path.write_bytes(b"") and None, "only 0 bytes"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)) and None, "not saved KV"),
    "huge header": (huge_header, "no header of at most"),
    "long header": (long_header, "no header of at most"),
    "deep header": (deep_header, "none of ours"),
    "foreign": (other_safetensors, "not saved KV"),
    "directory": (directory, "no regular file"),
    "pipe": (pipe, "no regular file"),
    "link": (link, "symbolic links"),
    "version": (about(lambda told: told.update(version=2)), "version 1"),
    "digest": (about(lambda told: told.update(digest="cd" * 32)), "another model"),
    "kv_bits": (about(lambda told: told.update(kv_bits=8)), "other tokens"),
    "tokens": (about(lambda told: told.update(tokens=1 << 40)), "none of ours"),
    "negative": (about(lambda told: told.update(tokens=-1)), "none of ours"),
    "fewer layers": (about(lambda told: told["layers"].pop()), "none of ours"),
    "other range": (about(lambda told: told.update(start=3, end=6)), "none of ours"),
    "offsets": (
        lambda path: sealed(path, lambda h: h["layers.3.keys"].update(data_offsets=[0, 1 << 40])),
        "none of ours",
    ),
    "huge shape": (
        lambda path: sealed(path, lambda h: h["layers.3.keys"].update(shape=[1 << 40])),
        "none of ours",
    ),
    "type": (lambda path: sealed(path, lambda h: h["tokens"].update(dtype="F64")), "none of ours"),
    "extra": (lambda path: sealed(path, lambda h: h.update(more=h["tokens"])), "none of ours"),
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_refused_by_name_and_never_used(
    harm: str, folder: KvFolder, caplog: pytest.LogCaptureFixture
) -> None:
    path, good = save(folder), save(folder, TOKENS[:5])
    do, cause = HARM[harm]
    do(path)
    with caplog.at_level(logging.WARNING, "shardbus"):
        found = run(folder.scan(DIGEST, 10))
    assert [stored.path for stored in found] == [good]
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert cause.lower() in record.getMessage().lower()


def test_a_damaged_file_is_put_aside_a_foreign_one_left(folder: KvFolder) -> None:
    path, other = save(folder), save(folder, TOKENS[:5])
    truncate(path)
    HARM["version"][0](other)
    assert run(folder.scan(DIGEST, 10)) == []
    assert not path.exists()
    assert path.with_name(path.name + ".refused").exists()
    assert other.exists()
    assert save(folder) == path  # it can be saved anew
    assert len(run(folder.scan(DIGEST, 10))) == 1


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (replace(FULL, kind="full 8-bit"), "is full, this model's is full 8-bit"),
        (replace(FULL, arrays=FULL.arrays[:1]), "arrays of layer 3"),
        (LayerForm("full", (ArrayForm("keys", "F16", (1, 2, -1, 16)), FULL.arrays[1])), "arrays"),
        (LayerForm("full", (ArrayForm("keys", "BF16", (1, 2, -1, 8)), FULL.arrays[1])), "arrays"),
    ],
)
def test_a_layer_must_be_of_the_stage_s_own_form(
    form: LayerForm, why: str, folder: KvFolder
) -> None:
    with pytest.raises(Foreign, match=why):
        read(save(folder), 3, form)


def test_a_window_must_hold_what_the_next_token_sees() -> None:
    window = replace(FULL, window=8)
    assert [window.first_fits(first, 20) for first in (0, 1, 13, 14, 20)] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert not FULL.first_fits(1, 20)


def test_a_file_in_the_wrong_place_is_refused(folder: KvFolder) -> None:
    path, other = save(folder), identity(TOKENS[:5]).entry
    path.parent.rename(path.parent.with_name(other))
    assert run(folder.scan(DIGEST, 10)) == []


def test_an_entry_s_name_is_no_path(folder: KvFolder) -> None:
    save(folder)
    for entry in ("..", "../..", "", identity().entry + "/.."):
        assert folder.find(DIGEST, entry) == {}
        folder.drop(DIGEST, entry)
        assert folder.find("../" + DIGEST, entry) == {}
    assert len(folder.find(DIGEST, identity().entry)) == 1
    folder.drop(DIGEST, identity().entry)
    assert names(folder) == set()


def test_the_entry_unused_for_longest_goes_first(folder: KvFolder) -> None:
    paths = [save(folder, TOKENS[:n]) for n in (5, 6, 7)]
    for path, age in zip(paths, (3, 1, 2), strict=True):
        os.utime(path.parent, (1e9 - age, 1e9 - age))
    folder.touch(DIGEST, paths[0].parent.name)
    folder.limit = sum(path.stat().st_size for path in paths)
    save(folder, TOKENS[:8])
    assert [path.exists() for path in paths] == [True, True, False]
    folder.limit = 100
    with pytest.raises(CannotSave, match="kv_disk"):
        save(folder)
    assert paths[0].exists()


def test_the_most_recent_entries_are_listed_first_and_no_more(folder: KvFolder) -> None:
    for n in (5, 6, 7):
        os.utime(save(folder, TOKENS[:n]).parent, (n, n))
    found = run(folder.scan(DIGEST, 2))
    assert [stored.identity.tokens for stored in found] == [7, 6]


def test_a_file_that_may_not_grow_leaves_nothing(folder: KvFolder) -> None:
    save(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(CannotSave, match="too large"):
            save(folder, tuple(range(2000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(folder) == {"layers-2-5.safetensors"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_full_disk_is_named_and_leaves_nothing(folder: KvFolder) -> None:
    path = folder.path(identity(), LAYERS)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    with pytest.raises(CannotSave) as caught:
        save(folder)
    assert caught.value.cause == "the disk is full"
    assert str(path) in str(caught.value)
    assert names(folder) == set()
    assert save(folder) == path  # there is room again


def test_a_folder_that_cannot_be_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "kv").write_text("a file")
    with pytest.raises(CannotSave, match="kv"):
        save(KvFolder(tmp_path / "kv", MANY))


KILLED = """
import os, signal, sys
from pathlib import Path
from daemon.layers import LayerRange
from daemon.storage.folder import KvFolder
from tests.storage.content import LAYERS, TOKENS, identity, parts
folder = KvFolder(Path(sys.argv[1]), 1 << 30)
steps = folder.save(identity(), LAYERS, TOKENS, parts())
for _ in range(int(sys.argv[2])):
    next(steps)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_a_process_killed_while_it_writes_leaves_nothing_that_is_believed(
    steps: int, folder: KvFolder
) -> None:
    command = [sys.executable, "-c", KILLED, str(folder.root), str(steps)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2])
    assert ended.returncode == -signal.SIGKILL
    assert names(folder) == {"layers-2-5.safetensors.part"}
    assert run(folder.scan(DIGEST, 10)) == []
    half = next(folder.root.rglob("*.part"))
    with pytest.raises(StorageError):
        run(read_manifest(LocalFile(half)))
    folder.clean()
    assert names(folder) == set()


def test_a_save_that_is_given_up_leaves_nothing(folder: KvFolder) -> None:
    steps = folder.save(identity(), LAYERS, TOKENS, parts())
    next(steps)
    steps.close()
    assert names(folder) == set()
