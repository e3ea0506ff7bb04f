"""A model in one process whose hidden states are coded and decoded between its stages: what a
cluster of such a split and codec has to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm import load

from benchmarks.worker import serve
from daemon.engine.stage import Row, Stage
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams
from daemon.stage.codecs import RowCoder
from transports.codecs.layout import Codec


class CodedModel:
    """Stages of so many layers each, with such a codec between them."""

    def __init__(self, folder: Path, split: Sequence[int], codec: Codec) -> None:
        ends = [0, *accumulate(split)]
        self._stages = [Stage.load(folder, LayerRange(a, b)) for a, b in pairwise(ends)]
        self._coder, self._codec = RowCoder.of(self._stages[0].info), codec

    def decode(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """Greedy, one sequence by itself."""
        caches = [stage.new_cache() for stage in self._stages]
        new, history, ids = list(prompt), list(prompt), list[int]()
        while len(ids) < tokens:
            out: Any = None
            for stage, cache in zip(self._stages, caches, strict=True):
                if out is not None:
                    out = [self._coder.decode(self._coder.encode(self._codec, out[0]))]
                out = stage.run([Row(cache, new, history, 1, SamplingParams())], out)
            new = list(out[0].tokens)
            history = history + new
            ids += new
        return ids


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--codec", required=True)
    arguments = parser.parse_args()
    split = [int(n) for n in arguments.split.split(",")]
    coded = CodedModel(Path(arguments.folder), split, Codec(arguments.codec))
    model = load(arguments.folder)[0]

    def decode(prompt: list[int], tokens: int) -> dict[str, Any]:
        return {"ids": coded.decode(prompt, tokens)}

    def gap(ids: list[int]) -> dict[str, Any]:
        """As of the model whose hidden states are not coded."""
        best = mx.sort(model(mx.array([ids]))[0, -1])[-2:]
        return {"gap": float(best[1] - best[0])}

    serve({"decode": decode, "gap": gap})


if __name__ == "__main__":
    main()
