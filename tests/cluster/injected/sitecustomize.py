"""Faults inside stage processes, by marker files in $SHARDBUS_TEST_MARKS; every other process is
left alone.

`spin-N` and `sleep-N` (N the stage) act once, in the next frame that has at least as many tokens as
the file says; the taken marker is renamed to `*.done`. `drop-N`, `double-N`, `cut-N` and `lag-N` do
so to the next frame that the stage sends on: it is lost, goes twice, finds the connection cut, or
is late. `drag-N` is like `sleep-N`, but stays; with `pace-N` every frame takes so many seconds
more. While `hold-load` exists no weights load; a stage that loads while `slow-prefill` exists
measures itself as slow as that file says.
"""

import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

SLEEP_SECONDS = 10.0
LAG_SECONDS = 0.3


def _inject(marks: Path) -> None:
    import psutil

    from daemon.engine.stage import Stage
    from daemon.ring import Ring
    from daemon.stage.worker import Worker

    handle, load, warm = Worker.handle, Stage.load.__func__, Stage.warm
    send = Ring.send
    place = {}  # the stage's index: its ring does not know it

    def cut(address):
        """End the TCP connection to there, as a cable that is pulled would."""
        port = int(address.rsplit(":", 1)[1])
        for one in psutil.Process().net_connections("tcp"):
            if one.raddr and one.raddr.port == port and one.fd >= 0:
                with socket.socket(fileno=os.dup(one.fd)) as connection, suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def faulty_send(self, frame):
        for fault, times in (("drop", 0), ("double", 2), ("cut", 1), ("lag", 1)):
            marker = marks / f"{fault}-{place.get('index')}"
            if marker.exists():
                marker.rename(marker.with_suffix(".done"))
                if fault == "cut":
                    cut(self.next_address)
                if fault == "lag":
                    time.sleep(LAG_SECONDS)
                for _ in range(times):
                    send(self, frame)
                return
        send(self, frame)

    def faulty_handle(self, frame, received):
        place["index"] = self.index
        drag = marks / f"drag-{self.index}"
        if drag.exists() and len(frame.tokens) >= int(drag.read_text()):
            time.sleep(SLEEP_SECONDS)
        with suppress(FileNotFoundError):  # it is taken away while this looks
            time.sleep(float((marks / f"pace-{self.index}").read_text()))
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

    Ring.send = faulty_send
    Worker.handle = faulty_handle
    Stage.warm = slow_warm
    Stage.load = classmethod(held_load)


if "daemon.stage" in sys.orig_argv and os.environ.get("SHARDBUS_TEST_MARKS"):
    _inject(Path(os.environ["SHARDBUS_TEST_MARKS"]))
