"""The coordinator's term: a number that grows with every start, so that two coordinators are never
taken for one.
"""

from __future__ import annotations

import os
from pathlib import Path


def next_term(path: Path, at_least: int = 1) -> int:
    """The next term, written to disk before anybody hears of it."""
    try:
        last = int(path.read_text())
    except FileNotFoundError:
        last = 0
    except ValueError:
        last = 0  # damaged: the stages' hellos raise it above what they have obeyed
    term = max(last + 1, at_least)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(str(term))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return term
