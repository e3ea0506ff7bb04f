"""Clients of all kinds that read their answers while something happens to the cluster: whose tokens
are exactly those of a calm cluster, and of one process where that can be compared.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import PROMPTS
from tests.cluster.reference import Reference

MOST_TOKENS = 400
GREEDY, SAMPLED, QUANTISED = "greedy", "sampled", "quantised"
OPTIONS: dict[str, dict[str, Any]] = {
    GREEDY: {},
    SAMPLED: {"temperature": 1.1, "seed": 7, "repetition_penalty": 1.2},
    QUANTISED: {"kv_bits": 8},
}
END_SECONDS = 120.0


@dataclass
class Readers:
    """`tokens` were checked, of `done` answers. `reissues`: how often something of one was computed
    again.
    """

    cluster: Cluster
    reference: Reference
    chance: random.Random
    done: int = 0
    tokens: int = 0
    reissues: int = 0
    _running: list[tuple[str, str, int, Generation]] = field(default_factory=list)
    _calm: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def prepare(self) -> None:
        """What a calm cluster answers, where one process cannot be asked."""
        for kind in (SAMPLED, QUANTISED):
            for prompt in PROMPTS:
                calm = Generation(self.cluster, prompt, MOST_TOKENS, **OPTIONS[kind]).result()
                self._calm[kind, prompt] = calm.tokens

    def have(self, count: int) -> None:
        """So many read, or more, and each has some tokens; who has ended is checked."""
        self._check([one for one in self._running if one[-1].over])
        while len(self._running) < count:
            kind, prompt = self.chance.choice([*OPTIONS]), self.chance.choice(PROMPTS)
            wanted = self.chance.randrange(MOST_TOKENS // 2, MOST_TOKENS)
            reader = Generation(self.cluster, prompt, wanted, **OPTIONS[kind])
            self._running.append((kind, prompt, wanted, reader))
        for _, _, _, reader in self._running:
            reader.wait_tokens(5)

    @property
    def reading(self) -> int:
        return sum(not reader.over for _, _, _, reader in self._running)

    def settle(self) -> None:
        """All read to the end."""
        self._check(self._running)

    def _check(self, ended: list[tuple[str, str, int, Generation]]) -> None:
        for one in list(ended):
            kind, prompt, wanted, reader = one
            reader.join(END_SECONDS)
            assert reader.error is None, reader.error.line()
            assert len(reader.tokens) == reader.reply["output_tokens"] == wanted
            if kind == GREEDY:
                self.reference.check(prompt, reader.tokens)
            else:
                assert reader.tokens == self._calm[kind, prompt][:wanted], (kind, prompt)
            self.done += 1
            self.tokens += wanted
            self.reissues += reader.reply["reissues"]
            self._running.remove(one)
