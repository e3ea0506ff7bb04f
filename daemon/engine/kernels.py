"""Where MLX keeps what it compiles at run time: libraries on the CPU, PTX with CUDA.

Left alone, all processes of a machine share `mlx/` in the system's folder for temporary files, and
MLX writes there in place. Who looks while another writes takes half a library for a whole one: its
request fails, or it concludes that nothing can be compiled here. So each process compiles into a
folder of its own. What this user's processes have compiled before is linked into it, and what is
new is linked back when it is whole.

    shardbus-UID/kernels/           whole files only
    shardbus-UID/compiling/PID-…/   of one process; removed by the next that finds it dead
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

_folder: Path | None = None  # of this process: as its environment, there is one


def enter() -> None:
    """Before anything is compiled. Without a folder that is this user's alone MLX's own stays."""
    global _folder
    # Asked for now, Python's own temporary files stay where they are.
    home = Path(tempfile.gettempdir()) / f"shardbus-{os.getuid()}"
    with suppress(OSError):
        for folder in (home, home / "kernels", home / "compiling"):
            folder.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return
        _remove_dead(home / "compiling")
        mine = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home / "compiling"))
        _link(home / "kernels", mine)
        os.environ["TMPDIR"] = str(mine)
        _folder = mine


def publish() -> None:
    """While nothing is being compiled: let others have it."""
    if _folder:
        with suppress(OSError):  # a full disk: they compile it themselves
            _link(_folder, _folder.parent.parent / "kernels")


def _link(source: Path, target: Path) -> None:
    for folder, _, names in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(mode=0o700, exist_ok=True)
        for name in {*names} - {*os.listdir(there)}:
            with suppress(FileExistsError):  # another was quicker
                os.link(Path(folder) / name, there / name)


def _remove_dead(compiling: Path) -> None:
    for folder in compiling.iterdir():
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
