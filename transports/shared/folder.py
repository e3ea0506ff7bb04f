"""Where a stage listens for the rdma process of its node: both are of one user, and nobody else may
come between them.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

from transports.errors import AddressError

MAX_PATH = 103  # sun_path on macOS, the shorter of the two
_UCRED = struct.Struct("=iII")  # pid, uid, gid
_XUCRED, _XUCRED_MOST = struct.Struct("=II"), 76  # version, uid, groups: <sys/ucred.h> of macOS
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1  # <sys/un.h>
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
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check(path)
    except OSError as error:
        raise AddressError(str(path), str(error), _TODO) from error


def check(path: Path) -> None:
    """OSError when there is no such folder, AddressError when it is somebody else's, or open."""
    folder = path.parent
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise AddressError(str(path), f"{folder} is not a folder of this user", _TODO)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise AddressError(str(path), f"others may enter {folder}", _TODO)


def check_listener(path: Path, connection: socket.socket) -> None:
    """Whether this user listens at `path`, to which this is a connection. AddressError, OSError."""
    uid = peer_uid(connection)
    if uid != os.getuid():
        why = f"a process of user {uid} listens there"
        raise AddressError(f"shared://{path}", why, f"see `lsof {path}`")


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a local connection. OSError."""
    uid: int
    if sys.platform == "darwin":
        _, uid = _XUCRED.unpack_from(
            connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_MOST)
        )
    else:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(data)
    return uid
