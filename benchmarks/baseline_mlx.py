"""mlx-lm in one process, as it is: its generate_step, its BatchGenerator for several streams, and
its own speculative generation where there is a draft.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.worker import pin_self, serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--draft")
    arguments = parser.parse_args()
    pin_self(arguments.core)

    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.generate import BatchGenerator, generate_step, speculative_generate_step

    model = load(arguments.folder)[0]
    draft = load(arguments.draft)[0] if arguments.draft else None

    def decode(prompt: list[int], tokens: int, prefill_step: int = 2048) -> dict[str, Any]:
        start = time.monotonic()
        ids: list[int] = []
        times: list[float] = []
        for token, _ in generate_step(
            mx.array(prompt), model, max_tokens=tokens, prefill_step_size=prefill_step
        ):
            times.append(time.monotonic())
            ids.append(token)
        mx.synchronize()
        return {"start": start, "times": times, "ids": ids}

    def speculate(prompt: list[int], tokens: int, guesses: int) -> dict[str, Any]:
        """`guesses` in every pass; `drafted` of the tokens were the draft's."""
        ids: list[int] = []
        times: list[float] = []
        drafted = 0
        for token, _, from_draft in speculative_generate_step(
            mx.array(prompt), model, draft, num_draft_tokens=guesses, max_tokens=tokens
        ):
            times.append(time.monotonic())
            ids.append(int(token))
            drafted += from_draft
        mx.synchronize()
        return {"times": times, "ids": ids, "drafted": drafted}

    def batch(prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        generator = BatchGenerator(model, max_tokens=tokens)
        uids = generator.insert(prompts)
        times: dict[int, list[float]] = {uid: [] for uid in uids}
        while responses := generator.next_generated():
            now = time.monotonic()
            for response in responses:
                times[response.uid].append(now)
        generator.close()
        return {"streams": list(times.values())}

    def gap(ids: list[int]) -> dict[str, Any]:
        """By how much the best logit after these is ahead of the second best."""
        best = mx.sort(model(mx.array([ids]))[0, -1])[-2:]
        return {"gap": float(best[1] - best[0])}

    serve({"decode": decode, "speculate": speculate, "batch": batch, "gap": gap, "ready": dict})


if __name__ == "__main__":
    main()
