"""One request in a thread: its tokens as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from ctl.client import Client
from ctl.errors import CommandError
from ctl.resumable import Resumable
from daemon.messages import Chunk, Reply
from daemon.sampling import SamplingParams
from tests.cluster.harness import PATIENCE, Cluster


def arguments(prompt: str, max_tokens: int | None, **options: Any) -> dict[str, Any]:
    """Those of `generate`; what is no option of the verb is one of sampling."""
    names = ("stop", "stop_at_eos", "kv_bits", "conversation")
    own = {k: options.pop(k) for k in names if k in options}
    return {
        "prompt": prompt,
        "raw": True,
        "sampling": SamplingParams(**options).to_wire(),
        "max_tokens": max_tokens,
        "stop": [],
        "stop_at_eos": False,
        **own,
    }


class _Nobody:
    """There is no output that could break."""

    def descriptors(self) -> list[tuple[int, int]]:
        return []

    def check(self) -> None:
        """It has not."""


class Generation:
    """Runs from construction on, as shardctl does it: over another connection when its own is lost.
    `result` waits for its end. With `resume` it goes on with that sequence, from `received` tokens
    on; one that is not `steady` ends with its connection.
    """

    def __init__(
        self,
        cluster: Cluster,
        prompt: str,
        max_tokens: int | None,
        *,
        wanted: dict[str, Any] | None = None,
        resume: str = "",
        received: int = 0,
        steady: bool = True,
        **options: Any,
    ) -> None:
        self.notes: list[str] = []
        self._resume, self._received, self._steady = resume, received, steady
        self.start: dict[str, Any] = {}
        self.tokens: list[int] = []
        self.logprobs: list[Any] = []
        self.text = ""
        self.waited: list[str] = []
        self.times: list[float] = []
        self.reply: dict[str, Any] = {}
        self.error: CommandError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run,
            args=(cluster, wanted or arguments(prompt, max_tokens, **options)),
            daemon=True,
        )
        self._thread.start()

    def _run(self, cluster: Cluster, wanted: dict[str, Any]) -> None:
        try:
            with cluster.client() as client:
                resumable = Resumable(client, self.notes.append)
                try:
                    for message in self._messages(client, resumable, wanted):
                        with self._changed:
                            self._take(message.data, isinstance(message, Reply))
                            self._changed.notify_all()
                finally:
                    resumable.close()
        except CommandError as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def _messages(
        self, client: Client, resumable: Resumable, wanted: dict[str, Any]
    ) -> Iterator[Chunk | Reply]:
        if not self._steady:
            return client.stream("generate", wanted)
        if self._resume:
            return resumable.resume(self._resume, self._received, _Nobody())
        return resumable.generate(wanted, _Nobody())

    def _take(self, data: dict[str, Any], last: bool) -> None:
        self.text += data.get("text") or ""
        if last:
            self.reply = data
        elif "waiting" in data:
            self.waited.append(data["waiting"])
        elif "sequence" in data:
            self.start = data
        else:
            self.tokens += data["tokens"]
            self.logprobs += data["logprobs"] or []
            self.times.append(time.monotonic())

    def wait_tokens(self, count: int) -> Self:
        """Until so many have come."""
        return self._wait(lambda: len(self.tokens) >= count, f"{count} tokens")

    def wait_started(self) -> Self:
        return self._wait(lambda: bool(self.start), "a first word")

    def _wait(self, check: Any, what: str) -> Self:
        with self._changed:
            done = self._changed.wait_for(lambda: check() or self.over, PATIENCE)
        assert done, f"no {what} in {PATIENCE:g} s; {len(self.tokens)} tokens have come"
        assert check(), f"ended before {what}: {self.error and self.error.line()} {self.reply}"
        return self

    @property
    def over(self) -> bool:
        return bool(self.reply or self.error)

    def join(self, seconds: float = PATIENCE) -> Self:
        """Wait for its end, good or bad."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.over, seconds), "the request does not end"
        self._thread.join(PATIENCE)
        return self

    def result(self) -> Self:
        """Wait for a good end."""
        self.join()
        assert self.error is None, self.error.line()
        return self
