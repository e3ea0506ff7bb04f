"""The training loop: the target learns from text, the draft from the target's logits."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from daemon.embedded.train.model import Shape, Weights, forward, initialise
from daemon.embedded.train.tokenizer import VOCABULARY

TARGET = Shape(layers=8, hidden=192, heads=3, kv_heads=1, feed_forward=384, vocabulary=VOCABULARY)
DRAFT = Shape(layers=2, hidden=128, heads=2, kv_heads=1, feed_forward=288, vocabulary=VOCABULARY)

TOKENS_PER_STEP = 4096
WARM_UP = 50
DECAY_SHARE = 0.25  # of the steps, at the end, over which the rates fall to nothing
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
        weights = initialise(shape, torch.Generator().manual_seed(seed))
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


def rate_at(step: int, steps: int) -> float:
    """Warm-up, plateau, straight decline. The plateau does not depend on `steps`, so that a run
    continued with fewer or more steps equals one started with them."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (steps * DECAY_SHARE))


def window_at(step: int, steps: int) -> int:
    """Mostly short windows; while the rates fall some long ones, for long prompts' sake."""
    if steps - step >= steps * DECAY_SHARE:
        return 256
    return {3: 4096, 1: 1024, 5: 1024, 9: 1024, 13: 1024}.get(step % 16, 256)


def batch_at(ids: Ids, seed: int, step: int, window: int) -> torch.Tensor:
    """Windows at random places: a pure function of its arguments."""
    rows = TOKENS_PER_STEP // window
    starts = np.random.default_rng((seed, step)).integers(0, len(ids) - window, size=rows)
    return torch.from_numpy(ids[starts[:, None] + np.arange(window + 1)])


def distillation(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy against the target's distribution: its divergence, up to a constant."""
    return F.cross_entropy(draft.flatten(0, 1), target.flatten(0, 1).softmax(-1))


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
    """A checkpoint that `load` continues from, replaced in one go."""
    state = {
        "step": step,
        "seconds": seconds,
        "weights": [learner.weights for learner in learners],
        "optimizers": [[o.state_dict() for o in learner.optimizers] for learner in learners],
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def load(path: Path, learners: tuple[Learner, Learner]) -> tuple[int, float]:
    """Restore the learners; returns the steps done and the seconds they took."""
    state = torch.load(path, weights_only=True)
    for learner, weights, optimizers in zip(
        learners, state["weights"], state["optimizers"], strict=True
    ):
        for name, tensor in learner.weights.items():
            tensor.data.copy_(weights[name])
        for optimizer, saved in zip(learner.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(saved)
    return state["step"], state["seconds"]


def train(
    ids: Ids, held_out: Ids, folder: Path, seed: int, steps: int, save_every: int = 100
) -> tuple[Learner, Learner, float]:
    """Train both models for `steps`, continuing from the checkpoint in `folder` if there is one;
    returns them and the seconds spent in all."""
    learners = target, draft = Learner.fresh(TARGET, seed), Learner.fresh(DRAFT, seed + 1)
    checkpoint = folder / "checkpoint.pt"
    first, before = load(checkpoint, learners) if checkpoint.exists() else (0, 0.0)
    started = time.monotonic()
    for step in range(first, steps):
        batch = batch_at(ids, seed, step, window_at(step, steps))
        rate = rate_at(step, steps)
        logits = target.logits(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        target.update(rate)
        distillation(draft.logits(batch[:, :-1]), logits.detach()).backward()
        draft.update(rate)
        seconds = before + time.monotonic() - started
        record = {"step": step + 1, "seconds": round(seconds, 1), "loss": round(loss.item(), 4)}
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save(checkpoint, learners, step + 1, seconds)
            record |= quick_check(target, draft, held_out)
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
    return target, draft, before + time.monotonic() - started
