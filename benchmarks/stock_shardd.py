"""A shardd whose stages multiply with what MLX's wheel brings, to measure what that costs. For
benchmarks only.
"""

from __future__ import annotations

from daemon.__main__ import main
from daemon.engine import blas


def _stock(*_: object, **__: object) -> blas.Blas:
    return blas.Blas("reference", reason="a benchmark asked for it")


if __name__ == "__main__":
    blas.find_blas = _stock
    main()
