"""A coordinator of one thread without sockets: what clients would hear is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from daemon import messages as msg
from daemon.coordinator.answer import Answer, Refusal
from daemon.coordinator.arguments import BadArguments
from daemon.coordinator.clients import Clients
from daemon.coordinator.journal import Journal
from daemon.coordinator.models import ServedModel
from daemon.coordinator.process import Coordinator
from daemon.coordinator.streams import SILENT_SECONDS
from daemon.coordinator.tokenizer import Tokenizer
from daemon.engine.quantization import KVQuantization
from daemon.scheduler import actions as sc
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.scheduler.request import FinishReason
from daemon.scheduler.scheduler import Scheduler


class Desk:
    """Work is done when the test says so."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[[], Any], ...]] = []

    @property
    def waiting(self) -> int:
        return len(self._jobs)

    def submit(self, *job: Callable[..., Any]) -> None:
        self._jobs.append(job)

    def run(self) -> None:
        while self._jobs:
            work, then, failed = self._jobs.pop(0)
            try:
                result = work()
            except (Refusal, OSError, LookupError, OverflowError, ValueError) as error:
                failed(error)  # type: ignore[call-arg]
            else:
                then(result)  # type: ignore[call-arg]


class StandIn:
    """`context` tokens fit; every request runs and waits for what the test lets happen to it."""

    def __init__(self, state_dir: Path, context: int = 4096) -> None:
        self.desk = Desk()
        self.closing = False
        self.config = SimpleNamespace(
            node=SimpleNamespace(state_dir=state_dir),
            coordinator=SimpleNamespace(model=None, split=None, nodes=(), rebalance="off"),
            timeouts=SimpleNamespace(resume_s=30.0),
        )
        self.journal = Journal(state_dir / "journal", lambda text: self.note("journal", "", text))
        self.context_length = context
        self.model: ServedModel | None = None
        self.notes: list[str] = []
        self.heard: list[msg.Message] = []
        self.connected = True
        self.scheduler = Scheduler(Limits())
        pipeline = Pipeline(1, 1, (StageCost(((1, 0.01),), 0.001),), context, 512)
        self.scheduler.configure(pipeline, 0.0)
        self._sequences = 0
        self.turns_kept: list[bytes] = []
        self.saved: tuple[Any, int] | None = None  # of every prompt
        self.reads: list[Callable[[Any], object]] = []  # that have not ended
        self.kv_forgotten: list[tuple[str, int, tuple[int, ...]]] = []
        self.saved_kv = SimpleNamespace(
            forget=lambda *what: self.kv_forgotten.append(what),
            keep=self.turns_kept.append,
            worth_loading=lambda kv_bits, tokens: self.saved,
            load=lambda stored, then: self.reads.append(then),
        )
        self.cluster = SimpleNamespace(slots=(), members={})
        of = cast(Coordinator, self)
        self.clients = Clients(of)
        self.conversations = self.clients.conversations
        self.intake, self.streams = self.clients.intake, self.clients.streams
        self.clients.resuming.take_over(self.journal.open())

    def serve(self, tokenizer: Tokenizer, name: str = "qwen", obstacle: str = "") -> None:
        spec = SimpleNamespace(name=name, digest=f"digest of {name}")
        info = SimpleNamespace(kv_quantization=KVQuantization(32, obstacle))
        self.model = ServedModel(cast(Any, spec), cast(Any, info), tokenizer)

    # --- what the coordinator's parts call ---

    def note(self, kind: str, node: str, text: str) -> None:
        self.notes.append(f"{kind}: {text}")

    def new_sequence(self) -> bytes:
        self._sequences += 1
        return self._sequences.to_bytes(16, "big")

    def perform(self, actions: Iterable[sc.Action]) -> None:
        for action in actions:
            if isinstance(action, sc.Finished):
                self.streams.finished(action)

    def say(self, client: bytes, message: msg.Message) -> bool:
        self.heard.append(message)
        return self.connected

    # --- what tests do ---

    def answer(self) -> Answer:
        return Answer(self.say, b"client", 1)

    def ask(self, verb: Callable[[Answer, dict[str, Any]], None], **arguments: Any) -> Any:
        """The data of the reply, the refusal, or None while there is none."""
        self.heard.clear()
        try:
            verb(self.answer(), arguments)
        except (Refusal, BadArguments) as error:
            return str(error)
        self.desk.run()
        return self.last()

    def request(self, verb: str, **arguments: Any) -> Any:
        """The same by the name of the verb."""
        self.heard.clear()
        self.clients.request(b"client", msg.Request(msg.PROTOCOL, 1, verb, arguments))
        self.desk.run()
        return self.last()

    def last(self) -> Any:
        """The last word of the last request."""
        match self.heard[-1] if self.heard else None:
            case msg.Reply() as reply:
                return reply.data
            case msg.Failure() as failure:
                return f"{failure.code} {failure.what}: {failure.why}; {failure.todo}"
            case _:
                return None

    def turn(self, name: str, **arguments: Any) -> Any:
        """Ask for a turn. None when it runs, else why not."""
        return self.ask(self.intake.generate, conversation=name, **arguments)

    def kv_bits(self) -> int:
        """Of the request that runs."""
        (sequence,) = self.scheduler.sequences()
        return sequence.request.fidelity.kv_bits

    def prompt(self) -> tuple[int, ...]:
        """Of the request that runs."""
        (sequence,) = self.scheduler.sequences()
        return sequence.request.prompt

    def deliver(self, tokens: Iterable[int]) -> None:
        (sequence,) = self.scheduler.sequences()
        self.streams.deliver([sc.Deliver(sequence.id, 0, tuple(tokens))])

    def nobody_comes_back(self) -> None:
        """Clients are silent, then what they asked for has waited for them in vain."""
        self.streams.tick(time.monotonic() + SILENT_SECONDS + 1)
        self.streams.tick(time.monotonic() + self.config.timeouts.resume_s + 1)
        self.desk.run()

    def end(self, reason: FinishReason = FinishReason.STOP) -> Any:
        """The running request ends; the last word to its client."""
        (sequence,) = self.scheduler.sequences()
        self.perform(self.scheduler.finish(sequence.id, reason, 1.0))
        self.desk.run()
        self.conversations.check_integrity()
        self.journal.check_integrity()
        self.streams.endings.check_integrity()
        return self.last()
