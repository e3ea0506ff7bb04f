"""Progress on stderr: a line that redraws itself, for terminals only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ctl.output import say
from ctl.render.table import clean
from ctl.render.units import age, size

BAR = 24


def bar_line(parts: Mapping[str, tuple[int, int]]) -> str:
    """All nodes in one line: `a ████░░ 12.0/24.0 MB`. Pure."""
    texts = []
    for name, (done, total) in sorted(parts.items()):
        share = min(1.0, done / total) if total else 0.0
        length = max(4, BAR // max(1, len(parts)))
        full = int(share * length)
        bar = "█" * full + "░" * (length - full)
        texts.append(f"{clean(name)} {bar} {size(done)} / {size(total)}")
    return "   ".join(texts)


def move_line(moving: Mapping[str, Any]) -> str:
    """A rebalance in one line: `copying, 3s: 12.0 MB of KV sent, 1.2 MB left`. Pure."""
    done, total = moving.get("bytes_loaded") or 0, moving.get("bytes_total") or 0
    text = f"{clean(moving.get('phase'))}, {age(moving.get('seconds'))}"
    if moving.get("phase") == "preparing" and total:
        return f"{text}: {size(done)} / {size(total)} of weights loaded"
    if sent := moving.get("sent_bytes"):
        return f"{text}: {size(sent)} of KV sent, {size(moving.get('left_bytes'))} left"
    return text


class LiveLine:
    """Leaves nothing behind on the screen when it is closed."""

    def __init__(self, wanted: bool) -> None:
        self._live = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._drawn = ""

    def draw(self, text: str) -> None:
        if self._live and text != self._drawn:
            sys.stderr.write("\r\x1b[K" + text)
            sys.stderr.flush()
            self._drawn = text

    def close(self) -> None:
        """Wipe it."""
        self.draw("")


class LoadProgress(LiveLine):
    """Bytes loaded: a bar for each node."""

    def __init__(self, wanted: bool) -> None:
        super().__init__(wanted)
        self._parts: dict[str, tuple[int, int]] = {}

    def update(self, node: Any, done: Any, total: Any) -> None:
        """One node's progress; what is not numbers is left out."""
        if isinstance(done, int) and isinstance(total, int) and total > 0:
            self._parts[str(node)] = (done, total)
            self.draw(bar_line(self._parts))

    def update_nodes(self, nodes: Any) -> None:
        """The same from the nodes of a `status` answer."""
        for node in nodes or []:
            if node.get("state") == "loading":
                self.update(node.get("name"), node.get("bytes_loaded"), node.get("bytes_total"))


def failed_lines(lines: list[str]) -> None:
    """Quote the end of a log."""
    for line in lines:
        say("  | " + clean(line))
