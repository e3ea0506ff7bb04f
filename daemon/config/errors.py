"""The one error of the configuration. It is always the operator's to mend."""

from __future__ import annotations

from collections.abc import Iterable

EX_CONFIG = 78  # sysexits.h; the systemd unit has RestartPreventExitStatus=78


class ConfigError(Exception):
    """`where` is `FILE:LINE`, an environment variable, a flag or `defaults`."""

    def __init__(self, where: str, what: str, why: str, todo: str) -> None:
        self.where, self.what, self.why, self.todo = where, what, why, todo
        super().__init__(where, what, why, todo)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}; {self.why}; {self.todo}"
        return " ".join(text.split())  # one line, whatever was quoted in it


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The question to ask about a mistyped word, or `otherwise` when nothing known is near it."""
    import difflib  # needed only when something is wrong

    section, _, last = word.rpartition(".")
    split = [(name.rpartition("."), name) for name in known]
    inside = {parts[2]: name for parts, name in split if parts[0] == section}
    anywhere = {parts[2]: name for parts, name in split}  # a key in the wrong section
    for candidates, cutoff in ((inside, 0.6), (anywhere, 0.75)):
        if near := difflib.get_close_matches(last, candidates, n=1, cutoff=cutoff):
            return f"did you mean '{candidates[near[0]]}'?"
    return otherwise
