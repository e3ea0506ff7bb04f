"""How much of a core a whole session gets, where Linux groups threads by session (autogroup,
sched(7)): the nice values of threads count only against others of their own session then.

Other than a thread's, this one can be taken back without privileges. The kernel takes one change in
a tenth of a second of all that have none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def change(pid: int, nice: int) -> bool:
    """False where there is no such thing, or it cannot be changed now."""
    try:
        _file(pid).write_text(str(nice))
    except OSError:
        return False
    return True


def take_back() -> None:
    """Be no nicer than others, if this process leads a session that is. To be called now and then:
    once may be too early, or not be heard.
    """
    me = os.getpid()
    if os.getsid(0) == me and _nice(me) > 0:
        change(me, 0)


def _nice(pid: int) -> int:
    """0 where there is no such thing."""
    try:
        match = re.search(r"nice (-?\d+)", _file(pid).read_text())
    except OSError:
        return 0
    return int(match[1]) if match else 0


def _file(pid: int) -> Path:
    return Path(f"/proc/{pid}/autogroup")
