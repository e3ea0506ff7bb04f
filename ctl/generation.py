"""One generation: the request, the stream, the ways to end it, and how each format prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctl import output
from ctl.client import Client
from ctl.errors import CommandError, ExitCode, Interrupted
from ctl.output import Format, Sink
from ctl.render import records
from ctl.render.lists import statistics_text
from ctl.resumable import Resumable
from ctl.session import Session
from daemon.messages import Chunk

PATIENCE_SECONDS = 1.0
UNCONFIRMED = "the cancel was not confirmed; the coordinator ends what nobody comes back for"


@dataclass
class Collected:
    """What a stream has said so far."""

    start: dict[str, Any] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    def add(self, data: Mapping[str, Any]) -> None:
        """Take up one delivery."""
        self.texts.append(data.get("text") or "")
        self.tokens += data.get("tokens") or []
        if data.get("logprobs") is not None:
            self.logprobs += data["logprobs"]

    def result(self) -> dict[str, Any]:
        """All of it as one record."""
        merged = {**self.start, **self.end, "text": "".join(self.texts), "tokens": self.tokens}
        return {**merged, "logprobs": self.logprobs or None}


@dataclass(frozen=True)
class Resumed:
    """A request that somebody began, and how many of its tokens are left out."""

    sequence: str
    tokens: int


def generate(
    session: Session,
    client: Client,
    wanted: Mapping[str, Any] | Resumed,
    *,
    stream: bool = True,
    stats: bool = False,
) -> dict[str, Any]:
    """Run it and print it; the final record. `wanted` are the arguments of a new request, or says
    which one to go on with. Ctrl-C, a reader who has gone and a full disk cancel it on the
    coordinator before they go on their way; a coordinator that goes away is waited for.
    """
    sink = Sink()
    resumable = Resumable(client, session.note)
    try:
        return _run(session, resumable, wanted, sink, stream=stream, stats=stats)
    finally:
        resumable.close()


def _run(
    session: Session,
    client: Resumable,
    wanted: Mapping[str, Any] | Resumed,
    sink: Sink,
    *,
    stream: bool,
    stats: bool,
) -> dict[str, Any]:
    try:
        collected = _follow(session, client, wanted, sink, stream=stream)
        if session.output is Format.TABLE or session.output is Format.WIDE:
            sink.finish_line()
        sink.close()
    except (Interrupted, OSError) as end:
        if not client.cancel_stream():
            output.say(UNCONFIRMED)
        if isinstance(end, Interrupted):
            _last_line(session, sink)
        elif not isinstance(end, BrokenPipeError):
            why = end.strerror or str(end)
            raise CommandError(ExitCode.FAILED, "cannot write the output", why) from end
        raise
    except CommandError:
        _last_line(session, sink)
        raise
    result = collected.result()
    if stats:
        output.say(statistics_text(result))
    return result


def _last_line(session: Session, sink: Sink) -> None:
    """What has come so far is on the screen, and the shell's prompt gets a line of its own."""
    if session.output.machine:
        return
    try:
        sink.finish_line()
        sink.close(PATIENCE_SECONDS)  # a paused reader must not hold up Ctrl-C
    except OSError:
        return


def _follow(
    session: Session,
    client: Resumable,
    wanted: Mapping[str, Any] | Resumed,
    sink: Sink,
    *,
    stream: bool,
) -> Collected:
    collected = Collected()
    lines = session.output is Format.JSONL
    live = stream and not session.output.machine
    waiting: str | None = None
    if isinstance(wanted, Resumed):
        messages = client.resume(wanted.sequence, wanted.tokens, sink)
    else:
        messages = client.generate(wanted, sink)
    for message in messages:
        data = message.data
        if not isinstance(message, Chunk):
            collected.end = data
            collected.texts.append(data.get("text") or "")
            kind, text = "end", data.get("text") or ""
        elif "waiting" in data:
            if data["waiting"] != waiting:
                waiting = data["waiting"]
                session.hint(f"waiting: {waiting}")
            kind, text = "waiting", ""
        elif "sequence" in data:
            collected.start = data
            kind, text = "start", ""
        else:
            waiting = None
            collected.add(data)
            kind, text = "delta", data.get("text") or ""
        if lines:
            sink.write(records.line({"type": kind, **data}) + "\n")
        elif live:
            sink.write(text)
    if session.output is Format.JSON:
        sink.write(records.document(collected.result()) + "\n")
    elif not live and not lines:
        sink.write("".join(collected.texts))
    return collected
