"""The one error of the local cluster."""

from __future__ import annotations

from collections.abc import Sequence


class LocalError(Exception):
    """The local cluster cannot be had. `log` holds the last lines of the process at fault, `usage`
    says that the command line was wrong.
    """

    def __init__(
        self, what: str, why: str, todo: str, log: Sequence[str] = (), usage: bool = False
    ) -> None:
        super().__init__(f"{what}: {why}; {todo}")
        self.what, self.why, self.todo, self.log, self.usage = what, why, todo, tuple(log), usage
