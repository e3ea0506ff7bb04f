"""A client that runs several requests at once and times every token; shardctl's runs one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
    reply, empty before the end.
    """

    asked: float
    sequence: str = ""
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
        self._streams: dict[int, Stream] = {}
        self._events: dict[int, list[dict[str, Any]]] = {}

    def ask(self, verb: str, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        """One short request; TimeoutError when nothing answers."""
        number, deadline = self._send(verb, arguments), time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not self._socket.poll(int(left * 1000) + 1):
                break
            message = decode(self._socket.recv())
            match message:
                case Reply(request=request, data=data) if request == number:
                    return data
                case Failure(request=request) as failure if request == number:
                    raise ClusterError(f"{failure.what}: {failure.why}; {failure.todo}")
            self._take(message, time.monotonic())
        raise TimeoutError(verb)

    def begin(
        self, text: str, tokens: int, conversation: str | None = None, **sampling: Any
    ) -> Stream:
        """Ask, greedy unless `sampling` says otherwise; `wait` fills the stream."""
        arguments = {
            "prompt": text,
            "raw": True,
            "sampling": sampling,
            "max_tokens": tokens,
            "stop": [],
            "stop_at_eos": False,
            **({} if conversation is None else {"conversation": conversation}),
        }
        stream = Stream(time.monotonic())
        self._streams[self._send("generate", arguments)] = stream
        return stream

    def follow(self) -> list[dict[str, Any]]:
        """What happens in the cluster, those of the past first; `wait` fills the list."""
        events: list[dict[str, Any]] = []
        self._events[self._send("events", {"follow": True})] = events
        return events

    def run(self, verb: str, **arguments: Any) -> Stream:
        """A request of any kind that takes time; `wait` fills in its reply."""
        stream = Stream(time.monotonic())
        self._streams[self._send(verb, arguments)] = stream
        return stream

    def wait(self, done: Callable[[], bool]) -> None:
        """Take what comes until `done`."""
        alive = heard = time.monotonic()
        while not done():
            if self._socket.poll(200):
                data, heard = self._socket.recv(), time.monotonic()
                self._take(decode(data), heard)
            now = time.monotonic()
            if now - alive > ALIVE_SECONDS:
                self._send("alive", {})
                alive = now
            if now - heard > SILENCE_SECONDS:
                raise ClusterError(f"the coordinator was silent for {SILENCE_SECONDS:.0f} s")

    def generate(self, texts: Sequence[str], tokens: int, **sampling: Any) -> list[Stream]:
        """All texts at once; waits for the end of all. Nothing of earlier ones is reused."""
        self.ask("kv.evict", sequence="all")
        streams = [self.begin(text, tokens, **sampling) for text in texts]
        self.wait(lambda: all(stream.reply for stream in streams))
        return streams

    def _take(self, message: object, now: float) -> None:
        match message:
            case Chunk(request=number, data=data) if number in self._events:
                self._events[number].append(data)
            case Chunk(request=number, data=data) if number in self._streams:
                stream = self._streams[number]
                stream.sequence = data.get("sequence", stream.sequence)
                new = data.get("tokens") or []
                stream.ids += new
                stream.times += [now] * len(new)
            case Reply(request=number, data=data) if number in self._streams:
                self._streams.pop(number).reply = data
            case Failure(request=number) as failure if number in self._streams:
                raise ClusterError(f"{failure.what}: {failure.why}; {failure.todo}")

    def _send(self, verb: str, arguments: dict[str, Any]) -> int:
        self._number += 1
        self._socket.send(encode(Request(PROTOCOL, self._number, verb, arguments)))
        return self._number

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()
