"""The stage's socket, and how it greets who comes."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from transports.errors import AddressError
from transports.shared.folder import prepare

_BACKLOG = 4


def listen(path: Path) -> socket.socket:
    """At `path`, for this user alone. AddressError when it cannot be had."""
    prepare(path)
    _refuse_live(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(f"shared://{path}", str(error), "check node.state_dir") from error
    listener.setblocking(False)
    return listener


def _refuse_live(path: Path) -> None:
    """A socket that nobody listens at any more is taken away."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        why = "a file that is no socket stands there"
        raise AddressError(f"shared://{path}", why, "move it away")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.setblocking(False)
            probe.connect(str(path))
        except BlockingIOError:
            pass  # its queue is full: it lives
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise AddressError(f"shared://{path}", "another process listens there", f"see `lsof {path}`")
