"""A child that is stopped is found; one that goes on, or is another, is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from daemon.supervisor.standstill import Standstill, is_stopped


def test_only_one_that_stays_stopped_is_found() -> None:
    stopped = {7}
    standstill = Standstill(1.0, stopped.__contains__)
    assert standstill.look(7, 0.0) is None
    assert standstill.look(7, 0.9) is None
    assert standstill.look(7, 1.0) == 1.0
    stopped.clear()
    assert standstill.look(7, 1.5) is None
    stopped |= {7, 8}
    assert standstill.look(7, 2.0) is None
    assert standstill.look(8, 3.0) is None, "another process"
    assert standstill.look(0, 9.0) is None, "none"
    assert standstill.look(8, 9.5) is None


def test_a_stopped_process_is_told_from_a_sleeping_one() -> None:
    code = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert not is_stopped(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)  # until it is
        assert is_stopped(child.pid)
        child.kill()
    assert not is_stopped(child.pid)
