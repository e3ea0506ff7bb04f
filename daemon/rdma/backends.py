"""What each back end of mx.distributed wants in its environment, and what it can.

`ring`: TCP, everywhere. `jaccl`: RDMA over Thunderbolt 5, macOS. MLX's NCCL group can neither send
nor receive, so that no hop can use it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from daemon import messages as msg
from daemon.rdma.ending import BACKEND, DEVICES, Ending
from transports.shared.greeting import MOST_RANKS

RING, JACCL = "ring", "jaccl"
_FOREIGN = (
    "JACCL_",
    "MLX_JACCL_",
    "MLX_IBV_",
    "MLX_HOSTFILE",
    "MLX_RANK",
    "MLX_METAL_FAST_SYNCH",
)
LOOK_SECONDS = 5.0  # for a tool that may hang, as it does where the driver is stuck


def check(start: msg.RdmaStart) -> None:
    """Ending when such a group cannot be."""
    size = len(start.hosts)
    if start.backend not in (RING, JACCL):
        raise Ending(BACKEND, f"MLX's back end {start.backend!r} cannot send from one to another")
    if not start.rank < size <= MOST_RANKS or size < 2:
        raise Ending(BACKEND, f"rank {start.rank} of {size}")
    matrix = start.devices
    if start.backend == JACCL and [len(row) for row in matrix] != [size] * size:
        raise Ending(BACKEND, f"the matrix of devices has not {size} rows of {size}")


def environment(start: msg.RdmaStart, folder: Path) -> dict[str, str]:
    """The variables, and the files that some of them name, written to `folder`. OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = {"MLX_RANK": str(start.rank)}
    if start.backend == RING:
        found["MLX_HOSTFILE"] = _file(folder, "hosts.json", [[host] for host in start.hosts])
        return found
    found["MLX_IBV_DEVICES"] = _file(folder, "devices.json", _cells(start.devices))
    found["MLX_JACCL_COORDINATOR"] = start.hosts[0]
    if is_ring(start):
        found["MLX_JACCL_RING"] = "1"
    return found


def enter(variables: Mapping[str, str]) -> None:
    """In this process. What an operator's shell may have had goes: JACCL's own names for the same
    would win, and fast synchronisation deadlocks sends and receives.
    """
    for name in [*os.environ]:
        if name.startswith(_FOREIGN):
            del os.environ[name]
    os.environ.update(variables)


def is_ring(start: msg.RdmaStart) -> bool:
    """Whether only neighbours in rank can send to each other."""
    if start.backend == RING:
        return True
    ranks = range(len(start.hosts))
    cells = [start.devices[a][b] for a in ranks for b in ranks if a != b]
    return any(len(cell) != 1 for cell in cells)


def neighbours(start: msg.RdmaStart) -> list[int]:
    """The ranks that this one can send to."""
    size, rank = len(start.hosts), start.rank
    if is_ring(start):
        return sorted({(rank + 1) % size, (rank - 1) % size})
    return [other for other in range(size) if other != rank]


def look_for_devices(start: msg.RdmaStart) -> None:
    """Before JACCL is touched: with a device that is not there some versions of MLX crash. Ending
    when one is missing, or the tool does not answer.
    """
    needed = {device for cell in start.devices[start.rank] for device in cell}
    try:
        answer = subprocess.run(
            ["ibv_devices"], capture_output=True, text=True, timeout=LOOK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Ending(DEVICES, f"ibv_devices hangs ({LOOK_SECONDS:g} s): reboot") from None
    except OSError as error:
        raise Ending(DEVICES, f"ibv_devices cannot be run: {error}") from error
    if missing := sorted(needed - {*answer.stdout.split()}):
        raise Ending(DEVICES, f"ibv_devices does not list {', '.join(missing)}")


def _cells(matrix: list[list[list[str]]]) -> list[list[str | list[str] | None]]:
    """As MLX reads them: null, a name, or several."""
    return [[None if not c else c[0] if len(c) == 1 else c for c in row] for row in matrix]


def _file(folder: Path, name: str, content: object) -> str:
    path = folder / f"rdma-{name}"
    path.write_text(json.dumps(content))
    return str(path)
