"""A model in one process whose hidden states are coded and decoded between its stages: what a
cluster of such a split and codec has to say.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.worker import serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--codec", required=True)
    arguments = parser.parse_args()

    from itertools import accumulate, pairwise
    from pathlib import Path

    import mlx.core as mx
    from mlx_lm import load

    from daemon.engine.stage import Row, Stage
    from daemon.layers import LayerRange
    from daemon.sampling import SamplingParams
    from daemon.stage.codecs import RowCoder
    from transports.codecs.layout import Codec

    ends = [0, *accumulate(int(n) for n in arguments.split.split(","))]
    folder = Path(arguments.folder)
    stages = [Stage.load(folder, LayerRange(a, b)) for a, b in pairwise(ends)]
    coder, codec = RowCoder.of(stages[0].info), Codec(arguments.codec)
    model = load(arguments.folder)[0]

    def decode(prompt: list[int], tokens: int) -> dict[str, Any]:
        """Greedy."""
        caches = [stage.new_cache() for stage in stages]
        new, history, ids = list(prompt), list(prompt), list[int]()
        while len(ids) < tokens:
            hidden: Any = None
            for stage, cache in zip(stages, caches, strict=True):
                if hidden is not None:
                    hidden = [coder.decode(coder.encode(codec, hidden[0]))]
                row = Row(cache, new, history, 1, SamplingParams())
                hidden = stage.run([row], hidden)
            new = list(hidden[0].tokens)
            history = history + new
            ids += new
        return {"ids": ids}

    def gap(ids: list[int]) -> dict[str, Any]:
        """As of the model whose hidden states are not coded."""
        best = mx.sort(model(mx.array([ids]))[0, -1])[-2:]
        return {"gap": float(best[1] - best[0])}

    serve({"decode": decode, "gap": gap})


if __name__ == "__main__":
    main()
