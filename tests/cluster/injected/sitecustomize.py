"""Faults inside stage processes, by marker files in $SHARDBUS_TEST_MARKS; every other process is
left alone.

`spin-N` and `sleep-N` (N the stage) act once, in the next frame that has at least as many tokens as
the file says; the taken marker is renamed to `*.done`. `drag-N` is like `sleep-N`, but stays. While
`hold-load` exists no weights load; a stage that loads while `slow-prefill` exists measures itself
as slow as that file says.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

SLEEP_SECONDS = 10.0


def _inject(marks: Path) -> None:
    from daemon.engine.stage import Stage
    from daemon.stage.worker import Worker

    handle, load, warm = Worker.handle, Stage.load.__func__, Stage.warm

    def faulty_handle(self, frame, received):
        drag = marks / f"drag-{self.index}"
        if drag.exists() and len(frame.tokens) >= int(drag.read_text()):
            time.sleep(SLEEP_SECONDS)
        for fault in ("spin", "sleep"):
            marker = marks / f"{fault}-{self.index}"
            if marker.exists() and len(frame.tokens) >= int(marker.read_text()):
                marker.rename(marker.with_suffix(".done"))
                if fault == "sleep":
                    time.sleep(SLEEP_SECONDS)
                while fault == "spin":
                    pass
        return handle(self, frame, received)

    def held_load(cls, *args, **options):
        while (marks / "hold-load").exists():
            time.sleep(0.05)
        return load(cls, *args, **options)

    def slow_warm(self, *args, **options):
        speed = warm(self, *args, **options)
        slow = marks / "slow-prefill"
        return replace(speed, prefill=float(slow.read_text())) if slow.exists() else speed

    Worker.handle = faulty_handle
    Stage.warm = slow_warm
    Stage.load = classmethod(held_load)


if "daemon.stage" in sys.orig_argv and os.environ.get("SHARDBUS_TEST_MARKS"):
    _inject(Path(os.environ["SHARDBUS_TEST_MARKS"]))
