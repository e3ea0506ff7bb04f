"""The corpus: the source of the running Python's standard library, split by a hash of the path."""

import hashlib
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Folders that hold no ordinary code: tests, generated tables, and what is installed beside
# the library rather than part of it.
_SKIPPED_FOLDERS = frozenset(
    {
        "__phello__",
        "dist-packages",
        "encodings",
        "idle_test",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
    }
)
_SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
_SKIPPED_FILES = frozenset({"html/entities.py"})  # one table of 2,000 entities
_HELD_OUT_SHARE = 12  # one module in so many


@dataclass(frozen=True)
class Module:
    """One source file; `path` is relative to the standard library, with forward slashes."""

    path: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """The modules to train on and those that training never sees, each in order of path."""

    train: tuple[Module, ...]
    held_out: tuple[Module, ...]

    def digest(self) -> str:
        """A hash of every path and text: equal digests mean that training saw the same bytes."""
        digest = hashlib.sha256()
        for module in (*self.train, *self.held_out):
            digest.update(module.path.encode() + b"\0" + module.text.encode() + b"\0")
        return digest.hexdigest()


def is_held_out(path: str) -> bool:
    """Whether training must not see the module at `path`: decided by the path alone."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) % _HELD_OUT_SHARE == 0


def is_wanted(path: str) -> bool:
    """Whether the file at `path` is ordinary library code."""
    parts = PurePosixPath(path).parts
    return (
        path.endswith(".py")
        and path not in _SKIPPED_FILES
        and not _SKIPPED_FOLDERS.intersection(parts)
        and not any(part.startswith(_SKIPPED_PREFIXES) for part in parts)
    )


def split(modules: Iterable[Module]) -> Corpus:
    """Sort modules by path and divide them by the hash of it."""
    ordered = sorted(modules, key=lambda module: module.path)
    return Corpus(
        train=tuple(module for module in ordered if not is_held_out(module.path)),
        held_out=tuple(module for module in ordered if is_held_out(module.path)),
    )


def gather(root: Path | None = None) -> Corpus:
    """Read the standard library under `root`, by default that of the running Python."""
    root = root or Path(sysconfig.get_path("stdlib"))
    modules = []
    for file in root.rglob("*.py"):
        path = file.relative_to(root).as_posix()
        if not is_wanted(path):
            continue
        try:
            text = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # a few modules declare another encoding
        if text:
            modules.append(Module(path, text.replace("\r\n", "\n")))
    return split(modules)
