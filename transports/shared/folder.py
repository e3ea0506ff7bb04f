"""Where a stage listens for the rdma process of its node."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from transports.errors import AddressError

MAX_PATH = 103  # sun_path on macOS, the shorter of the two
_TODO = "move node.state_dir, or mend the folder's owner and mode (0700)"


def socket_path(state_dir: Path) -> Path:
    """The same for every process of a node. In its state_dir; where that is too long a path for a
    socket, in a folder of this user below the system's folder for such things.
    """
    path = state_dir.absolute() / "run" / "rdma.sock"
    if len(os.fsencode(path)) <= MAX_PATH:
        return path
    name = hashlib.blake2s(os.fsencode(state_dir.absolute()), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"shardbus-{os.getuid()}" / f"{name}.sock"


def prepare(path: Path) -> None:
    """Make the folder, for this user alone. AddressError when it is somebody else's, or open."""
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise AddressError(str(path), str(error), _TODO) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise AddressError(str(path), f"{folder} is not a folder of this user", _TODO)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise AddressError(str(path), f"others may enter {folder}", _TODO)
