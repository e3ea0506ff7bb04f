"""Why saved KV is not used, or cannot be saved. Each reads as one line that names the file."""

from __future__ import annotations


class StorageError(Exception):
    """Base. `name` is the file at fault, `cause` says what is wrong with it."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}")
        self.name = name
        self.cause = cause


class Damaged(StorageError):
    """The file was ours once: cut short, or bytes have changed."""


class Foreign(StorageError):
    """Another program's, another version's, another model's: not for this reader."""


class CannotRead(StorageError):
    """The disk, or the node that has the file, does not give it."""


class CannotSave(StorageError):
    """The disk is full or refuses. A request never fails of it."""
