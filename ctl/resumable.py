"""A generation that outlives its connection: when that is lost, another one goes on with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ctl.client import Client, Watch
from ctl.errors import CommandError, ExitCode
from daemon.messages import Chunk, Reply

PATIENCE = 12  # times the timeout that a coordinator may stay away, a minute as a rule
POLL_SECONDS = 0.2
_LOST = (ExitCode.UNREACHABLE, ExitCode.TIMEOUT)


class Resumable:
    """Begins with a client that is connected, and stays its owner's; `note` tells people what
    happens. What the coordinator has told is known by its number of tokens, so nothing comes twice.
    """

    def __init__(self, client: Client, note: Callable[[str], None]) -> None:
        self._client = client
        self._note = note
        self._own: Client | None = None  # the one that took the first one's place
        self._heard = False  # the first word, which says that the request is taken
        self._tokens = 0
        self._deadline: float | None = None  # while nothing comes

    def close(self) -> None:
        if self._own:
            self._own.close()
            self._own = None

    def generate(self, arguments: Mapping[str, Any], watch: Watch) -> Iterator[Chunk | Reply]:
        """The stream of `generate`, whole."""
        sequence = secrets.token_hex(16)  # our own: it may be lost before we hear of it
        return self._follow(sequence, {**arguments, "sequence": sequence}, watch)

    def resume(self, sequence: str, tokens: int, watch: Watch) -> Iterator[Chunk | Reply]:
        """The stream of a request that was begun by somebody else, after so many tokens."""
        self._tokens = tokens
        return self._follow(sequence, None, watch)

    def cancel_stream(self) -> bool:
        """As the client's; False also while there is none."""
        return self._deadline is None and self._client.cancel_stream()

    def _follow(
        self, sequence: str, generate: Mapping[str, Any] | None, watch: Watch
    ) -> Iterator[Chunk | Reply]:
        anew = generate is not None
        while True:
            if generate is not None and anew:
                stream = self._client.stream("generate", dict(generate), watch)
            else:
                wanted = {"sequence": sequence, "tokens": self._tokens}
                stream = self._client.stream("resume", wanted, watch)
            try:
                for message in stream:
                    self._deadline = None
                    if self._is_news(message):
                        yield message
                return
            except CommandError as error:
                if error.code in _LOST:
                    self._reconnect(error, watch)
                    anew = False
                elif generate is not None and not anew and not self._heard:
                    anew = True  # the request never arrived
                else:
                    raise

    def _is_news(self, message: Chunk | Reply) -> bool:
        """Whether it was not said over the connection before."""
        if not isinstance(message, Chunk):
            return True
        self._tokens += len(message.data.get("tokens") or ())
        first = "sequence" in message.data
        known, self._heard = self._heard, self._heard or first
        return not (first and known)

    def _reconnect(self, lost: CommandError, watch: Watch) -> None:
        """Raises `lost` when the coordinator does not come back in time."""
        if self._deadline is None:
            patience = PATIENCE * self._client.timeout
            self._deadline = time.monotonic() + patience
            self._note(f"{lost.what}: trying again for {patience:g} s")
        while time.monotonic() < self._deadline:
            watch.check()
            time.sleep(POLL_SECONDS)
            fresh = self._client.again()
            try:
                fresh.__enter__()
            except CommandError as error:
                if error.code in _LOST:
                    continue
                raise
            self.close()
            self._client = self._own = fresh
            return
        raise lost
