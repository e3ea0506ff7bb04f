"""A client that runs several requests at once and times every token; shardctl's runs one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import zmq

from daemon.messages import PROTOCOL, Chunk, Failure, Reply, Request, decode, encode

SILENCE_SECONDS = 120.0
ALIVE_SECONDS = 2.0


class ClusterError(Exception):
    """The cluster did not start, or refused or lost a request."""


@dataclass(slots=True)
class Stream:
    """One request as its client sees it: when it was asked, when each token arrived, and the final
    reply.
    """

    asked: float
    times: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)


class Requests(AbstractContextManager["Requests"]):
    """Requests over one connection to the coordinator."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._number = 0

    def ask(self, verb: str, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        """One short request; TimeoutError when nothing answers."""
        number, deadline = self._send(verb, arguments), time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not self._socket.poll(int(left * 1000) + 1):
                break
            match decode(self._socket.recv()):
                case Reply(request=request, data=data) if request == number:
                    return data
                case Failure(request=request) as failure if request == number:
                    raise ClusterError(f"{failure.what}: {failure.why}; {failure.todo}")
        raise TimeoutError(verb)

    def generate(self, texts: Sequence[str], tokens: int, **sampling: Any) -> list[Stream]:
        """All texts at once, greedy unless `sampling` says otherwise; waits for the end of all."""
        streams: dict[int, Stream] = {}
        for text in texts:
            asked = time.monotonic()
            arguments = {
                "prompt": text,
                "raw": True,
                "sampling": sampling,
                "max_tokens": tokens,
                "stop": [],
                "stop_at_eos": False,
            }
            streams[self._send("generate", arguments)] = Stream(asked)
        open_, alive = set(streams), time.monotonic()
        heard = alive
        while open_:
            if self._socket.poll(200):
                data, now = self._socket.recv(), time.monotonic()
                heard = now
                self._take(decode(data), now, streams, open_)
            now = time.monotonic()
            if now - alive > ALIVE_SECONDS:
                self._send("alive", {})
                alive = now
            if now - heard > SILENCE_SECONDS:
                raise ClusterError(f"the coordinator was silent for {SILENCE_SECONDS:.0f} s")
        return list(streams.values())

    def _take(
        self, message: object, now: float, streams: dict[int, Stream], open_: set[int]
    ) -> None:
        match message:
            case Chunk(request=number, data=data) if number in streams:
                new = data.get("tokens") or []
                streams[number].ids += new
                streams[number].times += [now] * len(new)
            case Reply(request=number, data=data) if number in open_:
                streams[number].reply = data
                open_.discard(number)
            case Failure(request=number) as failure if number in open_:
                raise ClusterError(f"{failure.what}: {failure.why}; {failure.todo}")

    def _send(self, verb: str, arguments: dict[str, Any]) -> int:
        self._number += 1
        self._socket.send(encode(Request(PROTOCOL, self._number, verb, arguments)))
        return self._number

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()
