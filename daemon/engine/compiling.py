"""Whether MLX can compile here: on the CPU it needs a C++ compiler at run time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx


def compiler_works() -> bool:
    """Whether functions that are compiled run as kernels of their own, on the device in use.

    Without g++ MLX runs them as they are written. Where g++ is there but does not work, compiling
    is switched off for the whole process, the models' own small functions included.
    """
    if "MLX_DISABLE_COMPILE" in os.environ:
        return False
    if mx.default_device().type == mx.DeviceType.cpu and shutil.which("g++") is None:
        return False
    try:
        mx.eval(mx.compile(lambda x: mx.exp(x) * x + 1)(mx.ones((2,))))
    except RuntimeError:
        mx.disable_compile()
        return False
    return True


@contextmanager
def uncompiled(works: bool) -> Iterator[None]:
    """Inside, compiled functions run as they are written; `works` is what `compiler_works` said."""
    if not works:
        yield
        return
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()
