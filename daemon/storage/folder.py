"""The files of one node: `<root>/<digest's first 16>/<entry>/layers-<range>.safetensors`.

The folder may be used by one process at a time. What it holds is read once, at the start; a file
that is written has another name until it is whole and on the disk. When the limit is reached the
entries that were used longest ago go first.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daemon import logs
from daemon.layers import LayerRange
from daemon.storage.content import (
    SLICE,
    Buffer,
    LayerParts,
    Steps,
    read_manifest,
    read_tokens,
    write,
)
from daemon.storage.errors import CannotRead, CannotSave, Damaged, Foreign, StorageError
from daemon.storage.manifest import Identity

log = logs.get("storage")

ENTRY = re.compile(r"[0-9a-f]{32}\Z")
DIGEST = re.compile(r"[0-9a-f]{16,64}\Z")
_FILE = re.compile(r"layers-(\d{1,6})-(\d{1,6})\.safetensors\Z")
_PART = ".part"
_REFUSED = ".refused"


class LocalFile:
    """A regular file of this disk, open for reading. CannotRead, Foreign."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise CannotRead(self.name, error.strerror or "cannot be opened") from error
        facts = os.fstat(self._fd)
        self.size = facts.st_size
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise Damaged(self.name, "is no regular file")

    def read(self, offset: int, into: Buffer) -> Iterator[None]:
        done = 0
        while done < len(into):
            try:
                got = os.preadv(self._fd, [into[done : done + SLICE]], offset + done)
            except OSError as error:
                raise CannotRead(self.name, error.strerror or "cannot be read") from error
            if not got:
                raise Damaged(self.name, f"ends at byte {offset + done}")
            done += got
            yield

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One good file, as far as its manifest and tokens tell: `used` is Unix time."""

    path: Path
    identity: Identity
    layers: LayerRange
    nbytes: int
    used: float
    tokens: Sequence[int]


class KvFolder:
    """Belongs to one thread. `limit` is in bytes, of all files together; with 0 nothing is saved,
    and nothing found.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit

    def path(self, identity: Identity, layers: LayerRange) -> Path:
        name = f"layers-{layers.start}-{layers.end}.safetensors"
        return self._model(identity.digest) / identity.entry / name

    def find(self, digest: str, entry: str) -> dict[LayerRange, Path]:
        """The files of an entry by the layers that they are named after; not yet looked into."""
        found: dict[LayerRange, Path] = {}
        if not self.limit or not DIGEST.match(digest) or not ENTRY.match(entry):
            return found
        for path in _listed(self._model(digest) / entry):
            match = _FILE.match(path.name)
            if match and int(match[1]) < int(match[2]):
                found[LayerRange(int(match[1]), int(match[2]))] = path
        return found

    def clean(self) -> None:
        """At the start: drop what a process that was ended had not finished."""
        for path in self.root.glob(f"*/*/*{_PART}"):
            _remove(path)

    def scan(self, digest: str, most: int) -> Steps[list[StoredFile]]:
        """Good files of this model's `most` entries that were used last, the latest first. What is
        damaged is put aside.
        """
        if not self.limit or not DIGEST.match(digest):
            return []
        entries = [path for path in _listed(self._model(digest)) if ENTRY.match(path.name)]
        entries.sort(key=_used, reverse=True)
        found = []
        for entry in entries[:most]:
            for layers, path in self.find(digest, entry.name).items():
                try:
                    found.append((yield from self._look(path, digest, entry.name, layers)))
                except StorageError as error:
                    self.refuse(path, error)
        return found

    def _look(self, path: Path, digest: str, entry: str, layers: LayerRange) -> Steps[StoredFile]:
        file = LocalFile(path)
        try:
            manifest = yield from read_manifest(file)
            if manifest.identity.digest != digest:
                raise Foreign(file.name, "is of another model")
            if (manifest.identity.entry, manifest.layers) != (entry, layers):
                raise Foreign(file.name, "is of other tokens or layers than its name says")
            history = yield from read_tokens(file, manifest)
            used = _used(path.parent)
            return StoredFile(path, manifest.identity, layers, file.size, used, history.tokens)
        finally:
            file.close()

    def refuse(self, path: Path, error: StorageError) -> None:
        """Say why a file is not used. A damaged one gets another name, so that it is not looked at
        again; a foreign one is left as it is.
        """
        log.warning("saved KV is ignored: %s", error)
        if isinstance(error, Damaged):
            with suppress(OSError):
                path.rename(path.with_name(path.name + _REFUSED))

    def touch(self, digest: str, entry: str) -> None:
        """The entry was used just now."""
        with suppress(OSError):
            os.utime(self._model(digest) / entry)

    def save(
        self,
        identity: Identity,
        layers: LayerRange,
        tokens: Sequence[int],
        parts: Sequence[LayerParts],
    ) -> Steps[int]:
        """Write a file and make sure that it is on the disk; returns its bytes. CannotSave, and
        then nothing of it is left.
        """
        path = self.path(identity, layers)
        part = path.with_name(path.name + _PART)
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)  # it is what people have said
            self._make_room(sum(one.nbytes for one in parts), path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                size = yield from write(file, identity, layers, tokens, parts)
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise CannotSave(str(path), _reason(error)) from error
        finally:
            _remove(part)
        self.touch(identity.digest, identity.entry)
        return size

    def drop(self, digest: str, entry: str) -> None:
        """Forget an entry."""
        if DIGEST.match(digest) and ENTRY.match(entry):
            shutil.rmtree(self._model(digest) / entry, ignore_errors=True)

    def usage(self) -> dict[Path, int]:
        """Bytes of every entry of every model, the longest unused first."""
        entries = [entry for model in _listed(self.root) for entry in _listed(model)]
        entries.sort(key=_used)
        return {entry: sum(map(_size, _listed(entry))) for entry in entries}

    def _make_room(self, needed: int, path: Path) -> None:
        if needed > self.limit:
            raise CannotSave(str(path), f"{needed} bytes are more than node.kv_disk allows")
        usage = self.usage()
        over = sum(usage.values()) + needed - self.limit
        for entry, size in usage.items():
            if over <= 0:
                return
            if entry == path.parent:
                continue
            log.info("removing saved KV %s: node.kv_disk is reached", entry)
            shutil.rmtree(entry, ignore_errors=True)
            over -= size

    def _model(self, digest: str) -> Path:
        return self.root / digest[:16]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return (error.strerror or str(error)).lower()
