"""Where MLX keeps what it compiles at run time: libraries on the CPU, PTX with CUDA.

Left alone, all processes of a machine share `mlx/` in the system's folder for temporary files, and
MLX writes there in place. Who looks while another writes takes half a library for a whole one: its
request fails, or it concludes that nothing can be compiled here. So each process compiles into a
folder of its own. What this user's processes have compiled before is linked into it, and what is
new is linked back when it is whole. Of those that start together on a machine where nothing was
compiled yet, one compiles and the others wait for it.

    shardbus-UID/kernels/           whole files only
    shardbus-UID/warm/              an empty file for everything whose kernels are among them
    shardbus-UID/compiling/PID-…/   of one process, locked while it lives; removed by the next
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

LONGEST_SECONDS = 60.0  # to wait for one that compiles: it may have been stopped
AGAIN_SECONDS = 0.05
_MLX = "mlx"  # what MLX makes there; a compiler that was killed, or a child, may leave other things
_folder: Path | None = None  # of this process: as its environment, there is one


def enter() -> None:
    """Before anything is compiled. Without a folder that is this user's alone MLX's own stays."""
    global _folder
    with suppress(OSError):
        # Asked for now, Python's own temporary files stay where they are.
        home = Path(tempfile.gettempdir()) / f"shardbus-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return
        for folder in (home / "kernels", home / "compiling", home / "warm"):
            folder.mkdir(mode=0o700, exist_ok=True)
        _remove_dead(home / "compiling")
        mine = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home / "compiling"))
        lock = _lock(mine)  # never closed: it ends with the process
        if not os.path.samestat(os.fstat(lock), mine.lstat()):
            return
        _link(home / "kernels" / _MLX, mine / _MLX)
        os.environ["TMPDIR"] = str(mine)
        _folder = mine


def exchange() -> None:
    """While nothing is being compiled: let others have it, and take what they have."""
    if _folder:
        kernels = _folder.parent.parent / "kernels"
        with suppress(OSError):  # a full disk: they compile it themselves
            _link(_folder / _MLX, kernels / _MLX)
        with suppress(OSError):
            _link(kernels / _MLX, _folder / _MLX)


@contextmanager
def warming(what: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Inside, `what` compiles all that it will need, and nothing else compiles in this process. The
    first time it is alone with that on the machine; whoever has to wait calls `waiting`, which may
    raise.
    """
    if _folder is None:
        yield
        return
    warm = _folder.parent.parent / "warm"
    name = f"{metadata.version('mlx')} {what}".encode()
    mark = warm / hashlib.blake2s(name, digest_size=8).hexdigest()
    turn = None if mark.exists() else _wait_for_turn(warm, waiting)
    try:
        exchange()
        yield
        exchange()
        if turn is not None:
            with suppress(OSError):
                mark.touch()
    finally:
        if turn is not None:
            os.close(turn)


def _wait_for_turn(warm: Path, waiting: Callable[[], None]) -> int | None:
    """A descriptor that has it; None when it does not come, and this process compiles as well."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        try:
            return _lock(warm)
        except BlockingIOError:
            waiting()
            time.sleep(AGAIN_SECONDS)
        except OSError:
            break
    return None


def _link(source: Path, target: Path) -> None:
    for folder, _, names in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(mode=0o700, exist_ok=True)
        for name in {*names} - {*os.listdir(there)}:
            with suppress(FileExistsError):  # another was quicker
                os.link(Path(folder) / name, there / name)


def _lock(folder: Path) -> int:
    """Its descriptor. OSError when a process that lives has it locked, or it is gone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_dead(compiling: Path) -> None:
    """Not by process id: containers that share the folder do not see each other's processes, and an
    id may be another's by now.
    """
    for folder in compiling.iterdir():
        with suppress(OSError):
            lock = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
