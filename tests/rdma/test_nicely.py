"""Who is nice, and for how long."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from daemon.rdma.nicely import NICE, nicely
from tests.rdma.rig import Rig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nice is of a whole process here")


def nice() -> int:
    """Of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_work_is_nice_and_what_comes_later_is_not() -> None:
    before, found = nice(), []
    nicely(lambda: found.append(nice()))
    later = threading.Thread(target=lambda: found.append(nice()))
    later.start()
    later.join()
    assert found == [NICE, before]
    assert nice() == before


def test_every_thread_of_a_process_that_works_is_as_nice_as_who_started_it(rig: Rig) -> None:
    rig.up()
    for process in rig.processes:
        threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {nice()}
