"""The draft models of the cluster, as the coordinator sees them: which one guesses, what it is
asked, and what it answers. The scheduler knows of no process: to it a draft is there or is not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import messages as msg
from daemon.scheduler import actions as sc

if TYPE_CHECKING:
    from daemon.coordinator.models import ServedModel
    from daemon.coordinator.process import Coordinator

LOADING_SECONDS = 300.0  # that a draft may be silent while it warms up


@dataclass(slots=True)
class Draft:
    """`seconds` are what a guess takes now; None while the model is loaded. `obstacle` is why it
    cannot be used with the model that is served.
    """

    hello: msg.DraftHello
    heard_at: float
    seconds: float | None
    obstacle: str = ""

    @property
    def peer(self) -> bytes:
        return f"draft:{self.hello.node}:{self.hello.incarnation}".encode()

    def view(self, used: bool) -> dict[str, Any]:
        waits = "ready" if used else "spare"
        state = "loading" if self.seconds is None else "unused" if self.obstacle else waits
        return {
            "node": self.hello.node,
            "model": self.hello.model,
            "state": state,
            "reason": self.obstacle or None,
            "tokens_per_second": 1.0 / self.seconds if self.seconds else None,
        }


class Drafting:
    """At most one draft is used: the first that fits."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._drafts: dict[str, Draft] = {}  # by node
        self._used: Draft | None = None
        self._served = ""

    def view(self) -> list[dict[str, Any]]:
        return [draft.view(draft is self._used) for draft in self._drafts.values()]

    def propose(self, action: sc.Propose) -> None:
        """What the scheduler asks for. A draft that takes no message is gone, or will be."""
        if self._used:
            ask = msg.Propose(
                self._of.cluster.term,
                action.sequence,
                action.position,
                action.prefix_hash,
                list(action.tokens),
                action.until,
                dict(action.constants),
            )
            self._of.say(self._used.peer, ask)

    # --- what the drafts say ---

    def hear(self, message: msg.DraftBeat | msg.Proposed | msg.DraftLags, peer: bytes) -> None:
        now = time.monotonic()
        draft = self._drafts.get(message.node)
        if draft is None or draft.hello.incarnation != message.incarnation:
            self._of.say(peer, msg.Identify(self._of.cluster.term))
            return
        draft.heard_at = now
        match message:
            case msg.DraftBeat():
                draft.seconds = message.token_seconds
                self._choose()
            case _ if draft is not self._used:
                return  # guesses for a model that is served no more
            case msg.Proposed(_, _, sequence, position, prefix_hash, tokens):
                if not all(0 <= token < draft.hello.vocab_size for token in tokens):
                    return  # no stage could embed it
                guess = tuple(tokens)
                drafted = self._of.scheduler.drafted(sequence, position, prefix_hash, guess, now)
                self._of.perform(drafted)
            case msg.DraftLags(_, _, sequence, held):
                self._of.perform(self._of.scheduler.lags(sequence, held, now))

    def hello(self, hello: msg.DraftHello) -> None:
        """Again when a draft has loaded, or was asked who it is."""
        now = time.monotonic()
        known = self._drafts.get(hello.node)
        if known and known.hello.incarnation != hello.incarnation:
            self._forget(known, "another process took its place")
        if known and known is self._used and known.hello.incarnation == hello.incarnation:
            known.heard_at = now
            return
        self._drafts[hello.node] = Draft(hello, now, hello.token_seconds)
        self._choose()

    def exited(self, exited: msg.ChildExited) -> None:
        """shardd says that a child ended."""
        draft = self._drafts.get(exited.node)
        if draft and exited.child == "draft" and exited.pid == draft.hello.pid:
            self._forget(draft, exited.detail)

    def tick(self, now: float) -> None:
        """Forget who is silent: it computes for ever, or is out of reach. Another model may be
        served now.
        """
        for draft in list(self._drafts.values()):
            silent, loading = now - draft.heard_at, draft.seconds is None
            if silent > (LOADING_SECONDS if loading else self._of.config.timeouts.dead_after_s):
                why = f"silent for {silent:.1f} s"
                self._forget(draft, why)
                kill = msg.KillStage(self._of.cluster.term, draft.hello.pid, why)
                self._of.to_node(draft.hello.node, kill)
        served = self._of.model.spec.digest if self._of.model else ""
        if served != self._served:
            self._served = served
            self._choose(anew=True)

    # --- which one ---

    def _forget(self, draft: Draft, why: str) -> None:
        del self._drafts[draft.hello.node]
        self._of.note("draft-gone", draft.hello.node, f"{draft.hello.model}: {why}")
        self._choose()

    def _choose(self, anew: bool = False) -> None:
        """The one in use stays while it fits; `anew`: another model is served, begin again."""
        model = self._of.model
        fitting = [draft for draft in self._drafts.values() if self._fits(draft, model)]
        if not (self._used or fitting) or (self._used in fitting and not anew):
            return
        self._used = fitting[0] if fitting else None
        if self._used and model:
            text = f"{self._used.hello.model} guesses for {model.spec.name}"
            self._of.note("draft", self._used.hello.node, text)
        seconds = self._used.seconds if self._used else None
        self._of.perform(self._of.scheduler.draft_ready(seconds, time.monotonic()))

    def _fits(self, draft: Draft, model: ServedModel | None) -> bool:
        """Whether it can be used now. Why not, if that lies in the two models, is said once."""
        before, draft.obstacle = draft.obstacle, _obstacle(draft.hello, model) if model else ""
        if draft.obstacle and draft.obstacle != before:
            self._of.note("draft", draft.hello.node, f"draft not used: {draft.obstacle}")
        return model is not None and draft.seconds is not None and not draft.obstacle


def _obstacle(hello: msg.DraftHello, model: ServedModel) -> str:
    """Why the one cannot guess for the other; empty when it can."""
    name, served = hello.model, model.spec.name
    if hello.vocab_size != model.info.vocab_size:
        return f"{name} has {hello.vocab_size} tokens, {served} {model.info.vocab_size}"
    if hello.vocabulary != model.vocabulary:
        return f"{name} has another tokenizer than {served}"
    return ""
