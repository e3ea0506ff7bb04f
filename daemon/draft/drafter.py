"""What a draft model does: it follows the sequences it is told of, and guesses how they go on.

No sockets and no clock. A sequence's tokens are those it was told and those it has guessed since;
its cache holds some first part of them, so that whatever a cache cannot go back to is computed
again from the tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from daemon.batching import MOST_TOGETHER
from daemon.engine.caches import SequenceCache
from daemon.engine.stage import Row, Stage
from daemon.footprint import StageMemory
from daemon.history import History
from daemon.kv_bits import EXACT
from daemon.sampling import SamplingParams

MOST_SEQUENCES = 64
AHEAD = 64  # guesses for one request at most, whatever it asks for
RECENT = 10.0  # seconds
WORTH_SHARING = 16  # tokens that a new sequence must have in common with another to begin from it


@dataclass(frozen=True, slots=True)
class Guess:
    """`tokens` from `position` on, after tokens whose hash is `prefix_hash`."""

    sequence: bytes
    position: int
    prefix_hash: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lag:
    """Only the first `held` tokens of what was told before are known here."""

    sequence: bytes
    held: int


@dataclass(slots=True)
class _Entry:
    """`until` is the length up to which guesses are wanted."""

    cache: SequenceCache
    params: SamplingParams
    used: float
    history: History = field(default_factory=History)
    until: int = 0

    @property
    def guesses(self) -> bool:
        return len(self.history) < self.until

    @property
    def pending(self) -> Sequence[int]:
        """What the cache is to take in next. The last token waits for the pass that guesses."""
        end = len(self.history) - (not self.guesses)
        return self.history.tokens[self.cache.length : end]


class Drafter:
    """`budget` are the bytes that the KV of all sequences may take, `chunk` the most tokens that
    one step takes in of a long prompt. Times are the caller's.
    """

    def __init__(self, stage: Stage, budget: int, chunk: int, most: int = MOST_SEQUENCES) -> None:
        self._stage = stage
        self._memory = StageMemory(budget, stage.footprints())
        self._chunk = chunk
        self._most = most
        self._entries: dict[bytes, _Entry] = {}  # the least recently asked for first
        self._long_next = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def busy(self) -> bool:
        return any(entry.pending for entry in self._entries.values())

    def propose(
        self,
        sequence: bytes,
        position: int,
        prefix_hash: int,
        tokens: Sequence[int],
        until: int,
        constants: Mapping[str, Any],
        now: float,
    ) -> Guess | Lag | None:
        """Guess what follows the first `position` tokens and `tokens`, up to the length `until`; in
        place of what was asked before. Tokens that were guessed already are not computed again,
        only said again. A sequence for which there is no room is not taken, and nothing said.

        Raises KeyError, TypeError or ValueError for constants and tokens that cannot be used.
        """
        params = replace(SamplingParams.from_wire(constants["sampling"]), logprobs=None)
        vocabulary = self._stage.info.vocab_size
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
            raise ValueError(f"a token that is not one of {vocabulary}")
        known = position + len(tokens)
        entry = self._entries.get(sequence)
        if entry is None and position == 0:
            entry = self._begin(tokens, params, now)
        if entry is None or position > len(entry.history):
            return Lag(sequence, len(entry.history) if entry else 0)
        if entry.history.hash_at(position) != prefix_hash:
            return Lag(sequence, 0)
        self._tell(entry, position, tokens, params)
        entry.until = min(until, known + AHEAD, self._stage.info.context_length or until)
        entry.used = now
        self._entries.pop(sequence, None)
        if not self._make_room(self._needs(entry), now):
            return None
        self._entries[sequence] = entry
        ready = tuple(entry.history.tokens[known : entry.until])
        return Guess(sequence, known, entry.history.hash_at(known), ready) if ready else None

    def step(self) -> list[Guess]:
        """One pass of the model: a token more for every sequence that wants one and lacks few
        tokens, or, in turn with that, a chunk of what another one lacks.
        """
        waiting = [(key, e) for key, e in self._entries.items() if e.pending]
        short = [(key, e) for key, e in waiting if len(e.pending) <= MOST_TOGETHER]
        long = [(key, e) for key, e in waiting if len(e.pending) > MOST_TOGETHER]
        if not waiting:
            return []
        if long and (self._long_next or not short):
            self._long_next = False
            return self._run(long[:1])
        self._long_next = True
        return self._run(short)

    def expire(self, before: float) -> None:
        """Forget what was not asked for since then: a request that ended says nothing."""
        for sequence in [key for key, entry in self._entries.items() if entry.used < before]:
            del self._entries[sequence]

    def _begin(self, tokens: Sequence[int], params: SamplingParams, now: float) -> _Entry:
        """A new sequence; from one that begins with the same tokens, if there is any."""
        fresh = _Entry(self._stage.new_cache(), params, now)
        history = History(tokens)
        shared, source = 0, fresh
        for entry in self._entries.values():
            if (common := _common(history, entry.history)) > shared:
                shared, source = common, entry
        cache = source.cache.fork(shared) if shared >= WORTH_SHARING else None
        if cache is not None:
            fresh.cache, fresh.history = cache, history.head(cache.length)
        return fresh

    def _tell(
        self, entry: _Entry, position: int, tokens: Sequence[int], params: SamplingParams
    ) -> None:
        """Keep what agrees with `tokens` from `position` on, and what was guessed after all of
        them with the same parameters.
        """
        held = entry.history.tokens[position : position + len(tokens)]
        pairs = enumerate(zip(held, tokens, strict=False))
        agree = next((n for n, (a, b) in pairs if a != b), len(held))
        if agree < len(tokens) or entry.params != params:
            entry.history.trim(position + agree)
            entry.cache.trim(position + agree)
            entry.history.extend(tokens[agree:])
        entry.params = params
        # The token before a guess is computed with it: the cache may hold no guess's whole line.
        if entry.cache.length >= len(entry.history) > 0:
            entry.cache.trim(len(entry.history) - 1)

    def _make_room(self, needed: int, now: float) -> bool:
        """For one more sequence. Whoever was asked for just now is not driven out: sequences that
        do not fit together would have to be told of in full again and again.
        """
        free = self._memory.budget_bytes - needed - sum(map(self._needs, self._entries.values()))
        for sequence, entry in list(self._entries.items()):
            if (free >= 0 and len(self._entries) < self._most) or entry.used > now - RECENT:
                break
            free += self._needs(entry)
            del self._entries[sequence]
        return free >= 0 and len(self._entries) < self._most

    def _needs(self, entry: _Entry) -> int:
        return self._memory.bytes_for(EXACT, max(len(entry.history), entry.until))

    def _run(self, chosen: Sequence[tuple[bytes, _Entry]]) -> list[Guess]:
        rows, guessing = [], []
        for sequence, entry in chosen:
            tokens = entry.pending[: self._chunk]
            whole = entry.cache.length + len(tokens) == len(entry.history)
            history = entry.history.tokens
            rows.append(Row(entry.cache, tokens, history, int(whole), entry.params))
            if whole:
                guessing.append((len(rows) - 1, sequence, entry))
        sampled: list[Any] = self._stage.run(rows)
        guesses = []
        for place, sequence, entry in guessing:
            position, prefix_hash = len(entry.history), entry.history.hash_at(len(entry.history))
            tokens = tuple(sampled[place].tokens)
            entry.history.extend(tokens)
            guesses.append(Guess(sequence, position, prefix_hash, tokens))
        return guesses

    def check_integrity(self) -> None:
        assert len(self._entries) <= self._most, "drafter: too many sequences"
        needs = sum(map(self._needs, self._entries.values()))
        assert needs <= self._memory.budget_bytes, "drafter: too much KV"
        for entry in self._entries.values():
            entry.history.check_integrity()
            entry.cache.check_integrity()
            assert entry.cache.length < max(1, len(entry.history)), "drafter: nothing to guess from"


def _common(one: History, other: History) -> int:
    """How many first tokens are the same: equal hashes end where these do."""
    lengths = range(1, min(len(one), len(other)) + 1)
    return bisect_left(lengths, True, key=lambda n: one.hash_at(n) != other.hash_at(n))
