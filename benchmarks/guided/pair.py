"""The embedded model and its draft, on two stages that share their cores with the draft, against
mlx-lm's own speculative generation with the same pair on one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.cluster import PinnedCluster
from benchmarks.guided.common import Findings, checked, total_rate
from benchmarks.paced.field import PROMPTS
from benchmarks.paced.reference import Answer, Reference
from benchmarks.report import Fact, at_least
from benchmarks.requests import Requests
from benchmarks.rounds import interleave, window_rate
from benchmarks.worker import Worker
from daemon.embedded import DRAFT, TARGET

SPLIT = (4, 4)
TOKENS = 200
TEXTS = PROMPTS[:4]
GUESSES = (2, 3)  # of mlx-lm in every pass: the best of them counts
ALONE = "embedded, mlx-lm, one core, plain"
OFF, OURS = "embedded, shardbus, no speculation", "embedded, shardbus, the pair"
LOOKUP = "embedded, shardbus, n-grams alone"
TOGETHER = {name: f"{name}, {len(TEXTS)} streams" for name in (OFF, OURS, LOOKUP)}


@dataclass(slots=True)
class Contest:
    worker: Worker
    reference: Reference
    answers: Sequence[Answer]
    drafted: Counter[int]  # of mlx-lm's tokens, by its guesses in a pass

    def plain(self) -> float:
        asked = [self._ask(answer, op="decode") for answer in self.answers]
        return total_rate([said["times"] for said in asked])

    def speculative(self, guesses: int) -> float:
        asked = [self._ask(a, op="speculate", guesses=guesses) for a in self.answers]
        for said, answer in zip(asked, self.answers, strict=True):
            self.reference.compare_ids(said["ids"], answer)
        self.drafted[guesses] = sum(said["drafted"] for said in asked)
        return total_rate([said["times"] for said in asked])

    def one(self, cluster: PinnedCluster) -> float:
        """One stream after the other."""
        tokens = len(self.answers[0].tokens)
        streams = [cluster.generate([text], tokens)[0] for text in TEXTS]
        checked(self.reference, streams, self.answers)
        return total_rate([stream.times for stream in streams])

    def together(self, cluster: PinnedCluster) -> float:
        streams = cluster.generate(TEXTS, len(self.answers[0].tokens))
        checked(self.reference, streams, self.answers)
        return window_rate([stream.times for stream in streams])

    def _ask(self, answer: Answer, **request: object) -> dict[str, Any]:
        return self.worker.ask(prompt=answer.prompt, tokens=len(answer.tokens), **request)


def measure(found: Findings) -> None:
    tokens = found.tokens(TOKENS)
    with (
        found.single(TARGET, "--draft", str(DRAFT)) as worker,
        Reference(TARGET, worker) as reference,
        PinnedCluster(TARGET, SPLIT, name="off") as off,
        PinnedCluster(TARGET, SPLIT, name="lookup", guessing=True) as lookup,
        PinnedCluster(
            TARGET, SPLIT, name="pair", guessing=True, draft="embedded-draft"
        ) as drafting,
    ):
        drafting.await_draft()
        answers = [reference.answer(reference.ids(text), tokens) for text in TEXTS]
        contest = Contest(worker, reference, answers, Counter())
        clusters = {OFF: off, LOOKUP: lookup, OURS: drafting}
        measured = interleave(
            {
                ALONE: contest.plain,
                **{_theirs(k): partial(contest.speculative, k) for k in GUESSES},
                **{name: partial(contest.one, c) for name, c in clusters.items()},
                **{TOGETHER[name]: partial(contest.together, c) for name, c in clusters.items()},
            },
            found.rounds,
            turn=found.calm.turn,
        )
        shares = {name: _acceptance(clusters[name].requests) for name in (OURS, LOOKUP)}
    theirs = [_theirs(k) for k in GUESSES]
    found.checks += [
        at_least("pair_vs_mlx_lm_speculative", measured.ratio(OURS, *theirs), 1.25),
        at_least("pair_vs_no_speculation", measured.ratio(OURS, OFF), 1.0),
    ]
    found.facts += [
        Fact(
            "the pair against mlx-lm's speculation, best/best", measured.best_ratio(OURS, *theirs)
        ),
        Fact("the pair against one core, plain", measured.ratio(OURS, ALONE)),
        Fact("n-grams against no speculation", measured.ratio(LOOKUP, OFF)),
        *[
            Fact(
                f"{TOGETHER[n]}, against no speculation", measured.ratio(TOGETHER[n], TOGETHER[OFF])
            )
            for n in (OURS, LOOKUP)
        ],
        *[Fact(f"{name}: guesses that were right", share) for name, share in shares.items()],
        *[
            Fact(f"{_theirs(k)}: share of the tokens that were guessed", n / tokens / len(TEXTS))
            for k, n in contest.drafted.items()
        ],
    ]
    found.rates(measured)
    found.agreed(reference, "embedded")
    found.notes.append(
        f"The pair: the embedded model in {SPLIT[0]} + {SPLIT[1]} layers and its draft, a process "
        "on the first stage's core; greedy, one stream after the other, where nothing else is "
        f"said; {len(TEXTS)} beginnings of Python files, {tokens} tokens each. The model is small "
        "and its answers repeat themselves in parts, which n-grams see; these come before the "
        "draft, which is given up for them where that gives more tokens: most of the gain is "
        "theirs."
    )


def _theirs(guesses: int) -> str:
    return f"embedded, mlx-lm, one core, {guesses} guesses a pass"


def _acceptance(requests: Requests) -> float:
    return float(requests.ask("pipeline")["speculation"]["acceptance"] or 0.0)
