"""What the processes of a paced run are told, in a file, and what they tell at its end."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.paced.oracle import Script
from benchmarks.paced.pace import VARIABLE, Pace
from benchmarks.paced.timing import wait_until
from transports.codecs.layout import encoded_bytes
from transports.frame import DType

EARLY = 0.5e-3  # of virtual time: the relay lets frames go, and their receiver keeps them as long
ALLOWED_OVERRUNS = 0.01  # share of the passes, or hops, that may take longer than they should


@dataclass(frozen=True, slots=True)
class PacedPlan:
    """Everything takes `slow` times as long as `pace` says. The model has rows of `hidden_size`
    values; `relay` is where hops are asked for; `scripts` are the guesses, made by a draft process
    that takes `guess_seconds` for each, 0: there at once; `ahead`: whether frames of guesses may
    follow each other. What is told goes to `folder`.
    """

    pace: Pace
    slow: float
    hidden_size: int
    relay: str
    folder: Path
    scripts: tuple[Script, ...] = ()
    ahead: bool = True
    guess_seconds: float = 0.0

    def pass_seconds(self, first_layer: int, tokens: int) -> float:
        """Real seconds that the stage takes whose layers begin there."""
        return self.slow * self.pace.pass_seconds(self.pace.stage_from(first_layer), tokens)

    def hop_seconds(self, ids: bool, payload: int) -> float:
        """Real seconds that a frame takes with token ids, or with so many bytes of hidden states;
        a row of the model counts like a virtual one.
        """
        pace = self.pace
        rows = payload / encoded_bytes(pace.codec, self.hidden_size, 1, DType.FLOAT32)
        return self.slow * (pace.link.ids if ids else pace.link.hidden(rows * pace.row_bytes))

    @property
    def early_seconds(self) -> float:
        return self.slow * EARLY

    def write(self, path: Path) -> None:
        data = {
            "pace": self.pace.to_json(),
            "slow": self.slow,
            "hidden_size": self.hidden_size,
            "relay": self.relay,
            "folder": str(self.folder),
            "scripts": [script.to_json() for script in self.scripts],
            "ahead": self.ahead,
            "guess_seconds": self.guess_seconds,
        }
        path.write_text(json.dumps(data))

    @classmethod
    def read(cls, path: Path) -> Self:
        data = json.loads(path.read_text())
        return cls(
            Pace.from_json(data["pace"]),
            data["slow"],
            data["hidden_size"],
            data["relay"],
            Path(data["folder"]),
            tuple(map(Script.from_json, data["scripts"])),
            data["ahead"],
            data["guess_seconds"],
        )

    @classmethod
    def of_environment(cls) -> Self:
        return cls.read(Path(os.environ[VARIABLE]))


@dataclass(slots=True)
class Kept:
    """How well times were kept: of how many, those whose real work did not fit in, and the real
    seconds by which the others ended late.
    """

    count: int = 0
    overruns: int = 0
    late: list[float] = field(default_factory=list)

    def keep(self, due: float) -> None:
        """The real work is done: wait until `due`."""
        self.count += 1
        if time.monotonic() > due:
            self.overruns += 1
            return
        wait_until(due)
        self.late.append(time.monotonic() - due)

    def tell(self, folder: Path, what: str) -> None:
        """At the end of a process."""
        (folder / f"{what}-{os.getpid()}.json").write_text(json.dumps(asdict(self)))

    def merge(self, other: Kept) -> None:
        self.count += other.count
        self.overruns += other.overruns
        self.late += other.late

    @property
    def ok(self) -> bool:
        return self.overruns <= ALLOWED_OVERRUNS * self.count

    @classmethod
    def told(cls, folder: Path, what: str) -> Self:
        """By all processes."""
        total = cls()
        for file in folder.glob(f"{what}-*.json"):
            total.merge(cls(**json.loads(file.read_text())))
        return total
