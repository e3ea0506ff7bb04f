"""One request in a thread: its tokens as they come."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

from ctl.errors import CommandError
from daemon.messages import Reply
from daemon.sampling import SamplingParams
from tests.cluster.harness import PATIENCE, Cluster


def arguments(prompt: str, max_tokens: int | None, **options: Any) -> dict[str, Any]:
    """Those of `generate`; what is no option of the verb is one of sampling."""
    own = {k: options.pop(k) for k in ("stop", "stop_at_eos", "kv_bits") if k in options}
    return {
        "prompt": prompt,
        "raw": True,
        "sampling": SamplingParams(**options).to_wire(),
        "max_tokens": max_tokens,
        "stop": [],
        "stop_at_eos": False,
        **own,
    }


class Generation:
    """Runs from construction on; `result` waits for its end."""

    def __init__(
        self,
        cluster: Cluster,
        prompt: str,
        max_tokens: int | None,
        *,
        wanted: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
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
                for message in client.stream("generate", wanted):
                    with self._changed:
                        self._take(message.data, isinstance(message, Reply))
                        self._changed.notify_all()
        except CommandError as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

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
            done = self._changed.wait_for(lambda: check() or self._ended(), PATIENCE)
        assert done, f"no {what} in {PATIENCE:g} s; {len(self.tokens)} tokens have come"
        assert check(), f"ended before {what}: {self.error and self.error.line()} {self.reply}"
        return self

    def _ended(self) -> bool:
        return bool(self.reply or self.error)

    def join(self, seconds: float = PATIENCE) -> Self:
        """Wait for its end, good or bad."""
        with self._changed:
            assert self._changed.wait_for(self._ended, seconds), "the request does not end"
        self._thread.join(PATIENCE)
        return self

    def result(self) -> Self:
        """Wait for a good end."""
        self.join()
        assert self.error is None, self.error.line()
        return self
