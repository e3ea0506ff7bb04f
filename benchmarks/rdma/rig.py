"""Two stages' ends, their rdma processes between them, and a coordinator that only listens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import yaml
import zmq

from benchmarks.worker import ROOT, Worker, ask_all, free_ports
from daemon import messages as msg
from daemon.supervisor.node import ALLOCATOR
from transports.shared.folder import socket_path

PATIENCE_S = 60.0


class Rig(AbstractContextManager["Rig"]):
    """A machine's stage and its rdma process share a core: two cores stand for two machines."""

    def __init__(self, folder: Path, cores: tuple[int | None, int | None]) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
        with ExitStack() as stack:
            stack.callback(self._context.term)
            stack.callback(self._router.close, linger=0)
            self.ends: list[Worker] = []
            for rank, core in enumerate(cores):
                state = folder / f"rank{rank}"
                state.mkdir(parents=True, exist_ok=True)
                where = [
                    "--kind",
                    "shared",
                    "--rank",
                    str(rank),
                    "--where",
                    str(socket_path(state)),
                ]
                self.ends.append(
                    stack.enter_context(
                        Worker("benchmarks.rdma.ends", where, core=core, environment=ALLOCATOR)
                    )
                )
                stack.callback(_end, self._start(state, port, rank, hosts, core))
            ask_all(self.ends, op="ready")
            self._stack = stack.pop_all()

    def _start(
        self, state: Path, port: int, rank: int, hosts: list[str], core: int | None
    ) -> subprocess.Popen[bytes]:
        config = state / "node.yaml"
        settings = {
            "node": {"name": f"rank{rank}", "state_dir": str(state)},
            "coordinator": {"address": f"tcp://127.0.0.1:{port}"},
            "timeouts": {"heartbeat_s": 0.1},
            "log": {"level": "warning"},
        }
        config.write_text(yaml.safe_dump(settings))
        start = msg.encode(msg.RdmaStart(1, 1, "ring", rank, hosts, [])).hex()
        command = [sys.executable, "-m", "daemon.rdma", str(config), "i", str(os.getpid()), start]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ALLOCATOR})
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {core})
        return process

    def handover_us(self) -> list[float]:
        """From each rank's stage to its rdma process, p50 of the last ones, as that tells it."""
        self._router.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        since = time.monotonic() + 0.2  # two heartbeats: what is queued here already is old
        told: dict[int, float] = {}
        while len(told) < 2 or time.monotonic() < since:
            _, data = self._router.recv_multipart()
            match msg.decode(data):
                case msg.RdmaBeat() as beat:
                    told[beat.rank] = beat.handover_p50 * 1e6
        return [told[rank] for rank in sorted(told)]

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
