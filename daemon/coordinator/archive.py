"""The folder with the conversations: NAME.json each. Every call may be slow: work for the desk."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path

from daemon import logs
from daemon.coordinator import conversation as cv
from daemon.coordinator.answer import EXIT_FAILED, Refusal
from daemon.coordinator.conversation import Conversation, Damaged

log = logs.get("conversations")

MOST_BYTES = 64 << 20  # of one file


class Archive:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def names(self) -> list[str]:
        """Those that have a file, the one used last first. Perhaps not all: a disk may refuse, so
        whether there is one is for `read` to say.
        """
        found = []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name, dot, rest = entry.name.rpartition(".")
                    ours = dot and rest == "json" and cv.NAME.fullmatch(name)
                    if ours and (used := _used(entry)) is not None:
                        found.append((-used, name))
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("cannot list %s: %s", self._folder, error)
        return [name for _, name in sorted(found)]

    def read(self, name: str) -> Conversation | None:
        """None when there is none of that name. Refusal when there is one that cannot be used."""
        path = self.path(name)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise Damaged(f"larger than {MOST_BYTES} bytes")
            return cv.from_text(path.read_text("utf-8"), name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            why = f"{path} cannot be read ({error.strerror})"
            raise _unusable(name, why, "mend that, then ask again") from error
        except ValueError as error:  # Damaged is one, and so is text that is not UTF-8
            raise self._set_aside(name, str(error)) from error

    def write(self, conversation: Conversation) -> None:
        """All of it or nothing. OSError when the disk refuses it; what was there stays."""
        text = cv.to_text(conversation)
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        fresh = self._folder / f".{conversation.name}.new"
        with open(fresh, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path(conversation.name))

    def remove(self, name: str) -> None:
        """OSError when the disk refuses it."""
        self.path(name).unlink(missing_ok=True)

    def _set_aside(self, name: str, why: str) -> Refusal:
        path = self.path(name)
        aside = _free(path.with_name(f"{path.name}.damaged"))
        why = f"its file is damaged: {why}"
        try:
            path.replace(aside)
        except OSError as error:
            todo = f"remove {path}: it cannot be moved aside ({error.strerror})"
            return _unusable(name, why, todo)
        return _unusable(name, why, f"it is {aside} now; ask again to begin anew")


def _used(entry: os.DirEntry[str]) -> float | None:
    """When; None for what is no file."""
    try:
        return entry.stat().st_mtime if entry.is_file() else None
    except OSError as error:
        log.warning("cannot look at %s: %s", entry.path, error)
        return None


def _free(path: Path) -> Path:
    """What was set aside before stays: somebody may want it."""
    numbered = (path.with_name(f"{path.name}.{n}") for n in count(2))
    return next(one for one in chain((path,), numbered) if not one.exists())


def _private(path: str, flags: int) -> int:
    """Nobody else is to read what was said."""
    return os.open(path, flags, 0o600)


def _unusable(name: str, why: str, todo: str) -> Refusal:
    return Refusal(EXIT_FAILED, f"conversation {name} cannot be used", why, todo)
