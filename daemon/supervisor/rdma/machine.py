"""What this machine has for RDMA: its boot, its devices, and what mlx was built with."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from daemon.thunderbolt.look import Looker
from daemon.thunderbolt.offer import offer
from daemon.thunderbolt.run import Runner

LOOK_SECONDS = 30.0  # how old a look may be that an offer is made of
MLX_SECONDS = 30.0  # to import it on a busy machine
BUILT = (
    "import mlx.core as mx\n"
    "print(*[b for b in ('jaccl', 'ring') if mx.distributed.is_available(b)])"
)


@dataclass(frozen=True, slots=True)
class Found:
    """`devices` that JACCL could use; where there are none, `why_not` says why. `unplugged` are
    those whose ports have no cable, for certain.
    """

    boot: str
    devices: tuple[str, ...]
    why_not: str
    unplugged: tuple[str, ...] = ()


async def find(looker: Looker) -> Found:
    """Within seconds, whatever the tools do. Nothing is believed to be absent that did not say so,
    but what is not seen is not used.
    """
    has = offer((await looker.look(LOOK_SECONDS)).machine)
    return Found(has.boot, tuple(has.devices), has.why_not, tuple(has.unplugged))


async def built_backends() -> tuple[str, ...]:
    """Those of mx.distributed that this mlx has and that can send to one neighbour. It is asked in
    a process of its own: an import of mlx may abort.
    """
    said = await Runner(MLX_SECONDS).run([sys.executable, "-c", BUILT])
    return tuple(said.text.split()) if said.ok else ()
