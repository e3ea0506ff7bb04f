"""Commands that must reach every stage in the order of frames, and have not been seen to do so."""

from __future__ import annotations

from transports.frame import FINAL_ATTEMPT, Release

MAX_COMMANDS = 64  # in one frame


class Outbox:
    """A command is done when a frame that carried it came back; when that frame is given up, the
    command rides in another. Executing one twice does no harm.
    """

    def __init__(self) -> None:
        self._waiting: dict[Release, None] = {}
        self._riding: dict[Release, int] = {}

    def __len__(self) -> int:
        """Commands not known to be done."""
        return len(self._waiting) + len(self._riding)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def release(self, sequence: bytes, attempt: int = FINAL_ATTEMPT) -> None:
        command = Release(sequence, attempt)
        if command not in self._riding:
            self._waiting[command] = None

    def board(self, microbatch: int) -> tuple[Release, ...]:
        """The commands that this microbatch takes along."""
        commands = tuple(self._waiting)[:MAX_COMMANDS]
        for command in commands:
            del self._waiting[command]
            self._riding[command] = microbatch
        return commands

    def done(self, microbatch: int) -> None:
        """The frame came back: every stage has executed what it carried."""
        for command in self._of(microbatch):
            del self._riding[command]

    def lost(self, microbatch: int) -> None:
        for command in self._of(microbatch):
            del self._riding[command]
            self._waiting[command] = None

    def lost_all(self) -> None:
        """A new layout: whatever was under way is dropped."""
        self._waiting.update(dict.fromkeys(self._riding))
        self._riding.clear()

    def check_integrity(self) -> None:
        assert not self._waiting.keys() & self._riding.keys(), "outbox: waits and rides"

    def _of(self, microbatch: int) -> list[Release]:
        return [c for c, riding in self._riding.items() if riding == microbatch]
