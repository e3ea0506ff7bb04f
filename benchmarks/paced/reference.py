"""What mlx-lm says in one process to the prompts of a run; and whether others say the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.requests import ClusterError, Stream
from benchmarks.worker import Worker
from daemon.embedded import TARGET

TIE = 1e-4  # logits in fp32 that are closer may come out either way
DISTINCT = 8  # tokens in an answer; one that only repeats itself proves little


@dataclass(frozen=True, slots=True)
class Answer:
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


class Reference(AbstractContextManager["Reference"]):
    """One process, which waits while others are measured: `worker`, or one of its own. `compared`
    tokens were ours too; at `ties` two tokens were equally likely, and what followed was not
    compared.
    """

    def __init__(self, folder: Path = TARGET, worker: Worker | None = None) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._worker = worker or Worker("benchmarks.baseline_mlx", ["--folder", str(folder)])
        self.compared = self.ties = 0
        self.different: list[str] = []

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def answer(self, prompt: Sequence[int], tokens: int) -> Answer:
        said = self._worker.ask(op="decode", prompt=list(prompt), tokens=tokens)["ids"]
        return Answer(tuple(prompt), tuple(said))

    def coded(self, split: Sequence[int], codec: str) -> Reference:
        """What a model says whose hidden states are coded between its layers, in one process too.
        Nothing but that process is its own.
        """
        layers = ",".join(map(str, split))
        arguments = ["--folder", str(TARGET), "--split", layers, "--codec", codec]
        return Reference(TARGET, Worker("benchmarks.baseline_coded", arguments))

    def compare(self, stream: Stream, answer: Answer) -> None:
        """As `compare_ids`, and the prompt too."""
        if stream.reply["prompt_tokens"] != len(answer.prompt):
            raise ClusterError("the prompt was not made the same tokens of")
        self.compare_ids(stream.ids, answer)

    def compare_ids(self, ids: Sequence[int], answer: Answer) -> None:
        """A different token is either one of two that are equally likely, or wrong."""
        expected = answer.tokens[: len(ids)]
        if len(set(expected)) < min(DISTINCT, len(expected)):
            raise ClusterError(f"only {len(set(expected))} different tokens in an answer")
        pairs = enumerate(zip(ids, expected, strict=True))
        place = next((n for n, (ours, theirs) in pairs if ours != theirs), None)
        self.compared += len(ids) if place is None else place
        if place is None:
            return
        known = [*answer.prompt, *expected[:place]]
        gap = self._worker.ask(op="gap", ids=known)["gap"]
        if gap < TIE:
            self.ties += 1
        else:
            self.different.append(f"token {place}: the logits are {gap:.2g} apart")

    def __exit__(self, *_: object) -> None:
        self._worker.close()
