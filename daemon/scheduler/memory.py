"""What the sequences take of each stage's memory, and what there is: an account, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from daemon.footprint import StageMemory, room_for


@dataclass(frozen=True, slots=True)
class Shortage:
    """One stage does not have what is needed."""

    stage: int
    needed: int
    budget: int

    def __str__(self) -> str:
        return f"stage {self.stage} has {self.budget:,} bytes for KV, {self.needed:,} are needed"


class _Sum:
    """Places added up, by bits of the KV: how many sequences, and positions there is room for. All
    stages have the same ones, so that what each holds follows from it.
    """

    def __init__(self, other: _Sum | None = None) -> None:
        """As large as another."""
        self._sums: dict[int, tuple[int, int]] = dict(other._sums) if other else {}

    def add(self, place: tuple[int, int], times: int = 1) -> None:
        kv_bits, tokens = place
        sequences, positions = self._sums.get(kv_bits, (0, 0))
        self._sums[kv_bits] = sequences + times, positions + times * room_for(tokens)

    def on(self, stage: StageMemory) -> int:
        """Bytes."""
        found = 0
        for kv_bits, (sequences, positions) in self._sums.items():
            footprint = stage.footprint(kv_bits)
            found += sequences * footprint.sequence_bytes + positions * footprint.token_bytes
        return found


class Memory:
    """Every sequence that a stage holds has its place here, with the tokens it may come to before
    it asks for more. No stages: nothing is limited.
    """

    def __init__(self, stages: tuple[StageMemory, ...] = ()) -> None:
        self.stages = stages
        self.freed = 0  # how often there was more room than before
        self._places: dict[bytes, tuple[int, int]] = {}
        self._sum = _Sum()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self._places

    @property
    def used(self) -> list[int]:
        """Bytes of all places, by stage."""
        return [self._sum.on(stage) for stage in self.stages]

    @property
    def reach(self) -> int | None:
        return min((s.reach for s in self.stages if s.reach is not None), default=None)

    def place(self, sequence: bytes, kv_bits: int, tokens: int) -> None:
        """In place of what the sequence had; nothing is refused here."""
        self.free(sequence)
        self._places[sequence] = place = (kv_bits, tokens)
        self._sum.add(place)

    def tokens_of(self, sequence: bytes) -> int:
        """That it has its place for; KeyError when it has none."""
        return self._places[sequence][1]

    def free(self, sequence: bytes) -> None:
        place = self._places.pop(sequence, None)
        if place is not None:
            self.freed += 1
            self._sum.add(place, -1)

    def bytes_of(self, sequences: Iterable[bytes]) -> list[int]:
        """What these sequences take, by stage."""
        held = _Sum()
        for sequence in sequences:
            held.add(self._places[sequence])
        return [held.on(stage) for stage in self.stages]

    def shortage(
        self, sequence: bytes, kv_bits: int, tokens: int, without: Iterable[bytes] = ()
    ) -> Shortage | None:
        """Why the sequence cannot have this place; None when it can. `without`: as if these had
        none.
        """
        wanted = _Sum(self._sum)
        wanted.add((kv_bits, tokens))
        for gone in {*without, sequence} & self._places.keys():
            wanted.add(self._places[gone], -1)
        for index, stage in enumerate(self.stages):
            needed = wanted.on(stage)
            if needed > stage.budget_bytes:
                return Shortage(index, needed, stage.budget_bytes)
        return None

    def never(self, kv_bits: int, tokens: int) -> Shortage | None:
        """Why a sequence could not have this place even if there were no other."""
        for index, stage in enumerate(self.stages):
            needed = stage.bytes_for(kv_bits, tokens)
            if needed > stage.budget_bytes:
                return Shortage(index, needed, stage.budget_bytes)
        return None

    @property
    def over(self) -> bool:
        """Whether a stage holds more than it has: it was given less in a new layout."""
        return any(u > s.budget_bytes for u, s in zip(self.used, self.stages, strict=True))

    def check_integrity(self) -> None:
        assert self.used == self.bytes_of(self._places), "memory: the account is wrong"
