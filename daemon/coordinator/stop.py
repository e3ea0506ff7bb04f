"""Stop strings in a stream of text pieces: they may begin in one piece and end in another."""

from __future__ import annotations

from collections.abc import Iterable


class StopMatcher:
    """Passes text on as soon as it cannot be part of a stop string any more."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = [s for s in stops if s]
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string was found. After that nothing more
        comes.
        """
        if not self._stops:
            return text, False
        self._held += text
        found = [at for s in self._stops if (at := self._held.find(s)) >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max(self._partial(s) for s in self._stops)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def flush(self) -> str:
        """The stream has ended: what was held back is text after all."""
        shown, self._held = self._held, ""
        return shown

    def _partial(self, stop: str) -> int:
        """Length of the longest end of what is held that begins this stop string."""
        for n in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:n]):
                return n
        return 0
