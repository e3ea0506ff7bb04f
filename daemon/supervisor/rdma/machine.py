"""What this machine has for RDMA: its boot, its devices, and what mlx was built with."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from daemon.supervisor.rdma.asking import ask

TOOL_SECONDS = 5.0
MLX_SECONDS = 30.0  # to import it on a busy machine
BOOT = Path("/proc/sys/kernel/random/boot_id")
BUILT = (
    "import mlx.core as mx\n"
    "print(*[b for b in ('jaccl', 'ring') if mx.distributed.is_available(b)])"
)


@dataclass(frozen=True, slots=True)
class Found:
    """`devices` that JACCL could use; where there are none, `why_not` says why."""

    boot: str
    devices: tuple[str, ...]
    why_not: str


async def find() -> Found:
    """Within seconds, whatever the tools do. Nothing is believed to be absent that did not say so,
    but what is not seen is not used.
    """
    if platform.system() != "Darwin":
        return Found(_linux_boot(), (), "mlx has JACCL on macOS alone")
    boot = (await ask(["sysctl", "-n", "kern.bootsessionuuid"], TOOL_SECONDS) or "").strip()
    said = await ask(["ibv_devices"], TOOL_SECONDS)
    if said is None:
        why = "`ibv_devices` gives no answer: macOS before 26.2, or a driver that is wedged"
        return Found(boot, (), why)
    devices = tuple(word for word in said.split() if word.startswith("rdma_"))
    why_not = "" if devices else "there is no RDMA device: see `shardctl rdma status`"
    return Found(boot, devices, why_not)


def _linux_boot() -> str:
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


async def built_backends() -> tuple[str, ...]:
    """Those of mx.distributed that this mlx has and that can send to one neighbour. It is asked in
    a process of its own: an import of mlx may abort.
    """
    said = await ask([sys.executable, "-c", BUILT], MLX_SECONDS)
    return tuple(said.split()) if said else ()
