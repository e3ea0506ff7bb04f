"""Two cores over `mx.distributed`'s ring backend: with the same split, as the two best known
pipelines for MLX do it, and as mlx-lm's tensor parallelism.

`mlx-lm`: mlx-lm's PipelineMixin, whose forward this follows (llama does not have it; qwen2 does).
Rank 0 has the last layers. Receive, layers, send and the all_gather of the hidden state stay one
lazy graph; every rank computes the head. `exo`: exo's pipeline algorithm re-created, not exo
itself. Rank 0 has the first layers. Every step around the hop is evaluated on its own, then the
hidden state is gathered from all ranks, and every rank computes the head. Exo's further all_gather
per token, by which ranks agree on tasks, is left out, to its advantage. `tensor`: mlx-lm's
`model.shard`, each rank with half of every layer; the split says nothing. All are driven by
mlx-lm's generate_step on both ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from benchmarks.worker import Worker, ask_all, free_ports, pin_self, serve

STYLES = ("mlx-lm", "exo")  # the pipelines
TENSOR = "tensor"


class RingPair(AbstractContextManager["RingPair"]):
    """Two ranks, one core each. `split` is how many layers stand before and after the hop."""

    def __init__(
        self,
        style: str,
        folder: Path,
        split: tuple[int, int],
        state: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        hosts = state / f"ring-{style}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]))
        common = ["--style", style, "--folder", str(folder), "--hosts", str(hosts)]
        common += ["--split", f"{split[0]},{split[1]}"]
        with ExitStack() as stack:
            self._ranks = [
                stack.enter_context(
                    Worker(
                        __name__, [*common, "--rank", str(rank)], core=rank, environment=environment
                    )
                )
                for rank in range(2)
            ]
            ask_all(self._ranks, op="ready")
            self._stack = stack.pop_all()

    def decode(self, prompts: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
        """One stream, or several of equal length as one batch; both ranks give the same tokens."""
        return ask_all(self._ranks, op="decode", prompts=prompts, tokens=tokens)[0]

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("core", "rank"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("folder", "hosts", "split"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--style", choices=(*STYLES, TENSOR), required=True)
    arguments = parser.parse_args()
    pin_self(arguments.core)
    os.environ.update(MLX_HOSTFILE=arguments.hosts, MLX_RANK=str(arguments.rank))
    before, after = map(int, arguments.split.split(","))
    _serve_rank(arguments.folder, arguments.style, before, before + after)


def _serve_rank(folder: str, style: str, cut: int, layers: int) -> None:
    import mlx.core as mx
    from mlx.nn.layers.base import Module
    from mlx_lm import load
    from mlx_lm.generate import generate_step
    from mlx_lm.models.base import create_attention_mask
    from mlx_lm.models.cache import KVCache

    group = mx.distributed.init(strict=True, backend="ring")
    rank, exo = group.rank(), style == "exo"
    first = rank == (0 if exo else 1)
    other = 1 - rank

    class Body(Module):
        """LlamaModel's forward, over this rank's layers."""

        def __init__(self, whole: Any) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.embed_tokens, self.norm = whole.embed_tokens, whole.norm
            self.layers = whole.layers[:cut] if first else whole.layers[cut:layers]

        def __call__(self, inputs: mx.array, cache: Any, input_embeddings: Any = None) -> mx.array:
            h = self.embed_tokens(inputs)
            mask = create_attention_mask(h, cache[0])
            rows = h.shape[0]
            if not first:
                h = mx.distributed.recv_like(h, other)
                if exo:
                    mx.eval(h)
            for layer, own in zip(self.layers, cache, strict=True):
                h = layer(h, mask, own)
            if exo:
                mx.eval(h)
            if first:
                h = mx.distributed.send(h, other)
                cache[-1].keys = mx.depends(cache[-1].keys, h)
            if exo:
                mx.eval(h)
                h = mx.distributed.all_gather(h)[-rows:]
                mx.eval(h)
            else:
                h = mx.distributed.all_gather(h)[:rows]
            out: mx.array = self.norm(h)
            return out

    model = load(folder, lazy=True)[0]
    if style == TENSOR:
        model.shard(group)
    else:
        model.model = Body(model.model)
    mx.eval(model.parameters())

    def step(tokens: mx.array, cache: Any) -> mx.array:
        y = mx.argmax(model(tokens, cache=cache)[:, -1], axis=-1)[:, None]
        mx.async_eval(y)  # type: ignore[no-untyped-call]
        return y

    def decode(prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        cache = [KVCache() for _ in model.model.layers]
        ids: list[int] = []
        times: list[float] = []
        start = time.monotonic()
        if len(prompts) == 1:
            steps = generate_step(
                mx.array(prompts[0]), model, max_tokens=tokens, prompt_cache=cache
            )
            for token, _ in steps:
                times.append(time.monotonic())
                ids.append(token)
        else:
            y = step(mx.array(prompts), cache)
            for _ in range(
                tokens
            ):  # as generate_step does: the next step is built while this one runs
                following = step(y, cache)
                mx.eval(y)
                times.append(time.monotonic())
                y = following
        mx.synchronize()
        return {"start": start, "times": times, "ids": ids}

    serve({"decode": decode, "ready": dict})


if __name__ == "__main__":
    main()
