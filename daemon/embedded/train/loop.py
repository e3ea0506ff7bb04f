"""The training loop: the target learns from text, the draft from the target's logits."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from daemon.embedded.train.model import Shape, Weights, forward, initialise
from daemon.embedded.train.plan import DRAFT_FROM, RESHAPE_AT, Plan
from daemon.embedded.train.reshape import FINAL, FIRST, neuron_use, reshape
from daemon.embedded.train.tokenizer import VOCABULARY

TARGET = Shape(layers=8, hidden=192, heads=3, kv_heads=1, feed_forward=384, vocabulary=VOCABULARY)

TOKENS_PER_STEP = 4096
DRAFT_UPDATES = 4  # a step: the draft gains more from many small batches than from a large one
MATRIX_RATE = 0.02  # Muon, for the matrices of the layers
VECTOR_RATE = 0.003  # AdamW, for the embedding and the norms
Ids = npt.NDArray[np.int64]


@dataclass
class Learner:
    """One model in training and its two optimizers."""

    shape: Shape
    weights: Weights
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]

    @classmethod
    def fresh(cls, shape: Shape, seed: int) -> "Learner":
        return cls.of(shape, initialise(shape, torch.Generator().manual_seed(seed)))

    @classmethod
    def of(cls, shape: Shape, weights: Weights) -> "Learner":
        for tensor in weights.values():
            tensor.requires_grad_()
        matrices = [t for name, t in weights.items() if ".layers." in name and t.ndim == 2]
        others = [t for name, t in weights.items() if ".layers." not in name or t.ndim != 2]
        muon = torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.1, momentum=0.95)
        adam = torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        return cls(shape, weights, (muon, adam))

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits for predicting each next token, computed in bfloat16, returned in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            return forward(self.weights, self.shape, tokens).float()

    def update(self, rate: float) -> None:
        """One optimizer step at `rate` times the full learning rates."""
        for optimizer, full in zip(self.optimizers, (MATRIX_RATE, VECTOR_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = full * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def batch_at(ids: Ids, seed: int, step: int, window: int) -> torch.Tensor:
    """Windows at random places: a pure function of its arguments."""
    rows = TOKENS_PER_STEP // window
    starts = np.random.default_rng((seed, step)).integers(0, len(ids) - window, size=rows)
    return torch.from_numpy(ids[starts[:, None] + np.arange(window + 1)])


def distillation(draft: torch.Tensor, target: torch.Tensor, hard: float) -> torch.Tensor:
    """Cross entropy against the target's distribution and, weighing `hard`, its first choice:
    the one keeps the draft useful when sampling, the other is what greedy agreement counts."""
    log_draft = draft.log_softmax(-1)
    loss = -(target.softmax(-1) * log_draft).sum(-1).mean() * (1 - hard)
    if hard:
        first = log_draft.gather(-1, target.argmax(-1, keepdim=True))
        loss = loss - first.mean() * hard
    return loss


def teach(
    draft: Learner, tokens: torch.Tensor, wanted: torch.Tensor, rate: float, hard: float
) -> None:
    """Several updates of the draft from one batch and the target's logits for it."""
    parts = min(DRAFT_UPDATES, len(tokens))
    for some, logits in zip(tokens.chunk(parts), wanted.chunk(parts), strict=True):
        distillation(draft.logits(some), logits, hard).backward()
        draft.update(rate)


@torch.no_grad()  # type: ignore[untyped-decorator]
def lean(draft: Learner, tokens: torch.Tensor, wanted: torch.Tensor, weight: float) -> torch.Tensor:
    """The text's next tokens mixed with the draft's opinion of them: mutual learning. Where the
    text leaves the target undecided it takes the draft's side, which speculation profits from."""
    labels = draft.logits(tokens).softmax(-1) * weight
    own = torch.full_like(labels[..., :1], 1 - weight)
    return labels.scatter_add_(-1, wanted[..., None], own)


def reshaped(draft: Learner, target: Learner, tokens: torch.Tensor, seed: int) -> Learner:
    """The draft in its final shape, its neurons judged by their use on these tokens."""
    with torch.no_grad():
        wanted = target.logits(tokens)
    pairs = zip(tokens.chunk(4), wanted.chunk(4), strict=True)
    losses = [lambda t=t, w=w: distillation(draft.logits(t), w, 0.5) for t, w in pairs]
    return Learner.of(FINAL, reshape(draft.weights, neuron_use(draft.weights, losses), seed))


def quick_check(target: Learner, draft: Learner, ids: Ids) -> dict[str, float]:
    """Both losses and the agreement on the first 16 windows of held-out text."""
    tokens = torch.from_numpy(ids[: 16 * 256]).view(16, 256)
    wanted = tokens[:, 1:].flatten()
    with torch.no_grad():
        of_target = target.logits(tokens[:, :-1]).flatten(0, 1)
        of_draft = draft.logits(tokens[:, :-1]).flatten(0, 1)
    return {
        "target": F.cross_entropy(of_target, wanted).item(),
        "draft": F.cross_entropy(of_draft, wanted).item(),
        "agreement": (of_target.argmax(-1) == of_draft.argmax(-1)).float().mean().item(),
    }


def save(path: Path, learners: tuple[Learner, Learner], step: int, seconds: float) -> None:
    """A checkpoint that `restore` continues from, replaced in one go."""
    state = {
        "step": step,
        "seconds": seconds,
        "weights": [learner.weights for learner in learners],
        "optimizers": [[o.state_dict() for o in learner.optimizers] for learner in learners],
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def restore(state: dict[str, Any], learners: tuple[Learner, Learner]) -> None:
    """Put a checkpoint's weights and optimizers into the learners."""
    for learner, weights, optimizers in zip(
        learners, state["weights"], state["optimizers"], strict=True
    ):
        for name, tensor in learner.weights.items():
            tensor.data.copy_(weights[name])
        for optimizer, saved in zip(learner.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(saved)


def train(
    ids: Ids, held_out: Ids, folder: Path, seed: int, plan: Plan, save_every: int = 25
) -> tuple[Learner, Learner, float]:
    """Train both models, continuing from the checkpoint in `folder` if there is one; returns
    them and the seconds spent in all."""
    checkpoint = folder / "checkpoint.pt"
    target, draft = Learner.fresh(TARGET, seed), Learner.fresh(FIRST, seed + 1)
    first, before = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first, before = state["step"], state["seconds"]
        if first > RESHAPE_AT:
            draft = Learner.fresh(FINAL, seed)
        restore(state, (target, draft))
    started = time.monotonic()
    for step in range(first, plan.steps):
        if step == RESHAPE_AT:
            draft = reshaped(draft, target, batch_at(ids, seed, step, 256)[:, :-1], seed)
        batch = batch_at(ids, seed, step, plan.window(step))
        tokens, wanted = batch[:, :-1], batch[:, 1:]
        learns, weight = plan.target_learns(step), plan.lean(step)
        with torch.set_grad_enabled(learns):
            logits = target.logits(tokens)
            labels = lean(draft, tokens, wanted, weight) if learns and weight else wanted
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
        if learns:
            loss.backward()
            target.update(plan.target_rate(step))
        if step >= DRAFT_FROM:
            teach(draft, tokens, logits.detach(), plan.draft_rate(step), plan.hard(step))
        seconds = before + time.monotonic() - started
        record = {"step": step + 1, "seconds": round(seconds, 1), "loss": round(loss.item(), 4)}
        if (step + 1) % save_every == 0 or step + 1 == plan.steps:
            save(checkpoint, (target, draft), step + 1, seconds)
        if (step + 1) % (2 * save_every) == 0:
            record |= quick_check(target, draft, held_out)
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
    return target, draft, before + time.monotonic() - started
