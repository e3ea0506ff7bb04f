"""Stages' ends, in this process, and real rdma processes between them, over the ring back end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
import zmq

from benchmarks.worker import free_ports
from daemon import messages as msg
from tests.transports.contract import LIMITS, OPTIONS, PATIENCE_S
from transports.frame import Frame
from transports.shared.folder import socket_path
from transports.shared.port import Loss, SharedPort

ROOT = Path(__file__).parents[2]
WATCHDOG_S = 0.6
REAL = "daemon.rdma"


class Rig:
    """`size` nodes; a coordinator that the test plays, as far as it wants to."""

    def __init__(self, folder: Path, size: int = 2) -> None:
        self.folder = folder
        self.context: zmq.Context[Any] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.address = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        self.hosts = [f"127.0.0.1:{port}" for port in free_ports(size)]
        self.peers: dict[int, bytes] = {}
        self.ports: dict[int, SharedPort] = {}
        self.processes: list[subprocess.Popen[str]] = []
        self.losses: dict[int, Loss] = {}

    # --- processes ---

    def up(self) -> None:
        """All stages listen, all processes have joined, and each stage has its own."""
        for rank in range(len(self.hosts)):
            self.listen(rank)
            self.start(rank)
        self.until(lambda: all(port.peer for port in self.ports.values()))
        joined: set[int] = set()
        while len(joined) < len(self.hosts):
            joined.add(self.hear(msg.RdmaJoined).rank)

    def listen(self, rank: int) -> SharedPort:
        self.ports[rank] = SharedPort(
            socket_path(self.state_dir(rank)), LIMITS, WATCHDOG_S, OPTIONS
        )
        return self.ports[rank]

    def start(
        self,
        rank: int,
        module: str = REAL,
        *,
        backend: str = "ring",
        parent: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        config = self.state_dir(rank) / "node.yaml"
        settings = {
            "node": {"name": f"n{rank}", "state_dir": str(self.state_dir(rank))},
            "coordinator": {"address": self.address},
            "timeouts": {"heartbeat_s": 0.05},
            "rdma": {"watchdog_s": WATCHDOG_S},
            "log": {"format": "text"},
        }
        config.write_text(yaml.safe_dump(settings))
        matrix = [[[] if a == b else [f"rdma_en{b}"] for b in (0, 1)] for a in (0, 1)]
        devices: list[list[list[str]]] = matrix if backend == "jaccl" else []
        start = msg.RdmaStart(1, 1, backend, rank, self.hosts, devices)
        arguments = [str(config), "shardd", str(parent or os.getpid()), msg.encode(start).hex()]
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def state_dir(self, rank: int) -> Path:
        folder = self.folder / f"n{rank}"
        folder.mkdir(exist_ok=True)
        return folder

    def last_line(self, process: subprocess.Popen[str]) -> str:
        """Of stderr, when the process has ended."""
        _, errors = process.communicate(timeout=PATIENCE_S)
        return errors.splitlines()[-1] if errors else ""

    # --- the stages ---

    def look(self) -> None:
        """As each stage does now and then."""
        for rank, port in self.ports.items():
            if loss := port.look(time.monotonic()):
                self.losses[rank] = loss

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"did not happen in time; {self.losses}"
            self.look()
            time.sleep(0.002)

    def take(self, rank: int) -> Frame:
        frame = self.ports[rank].receive(PATIENCE_S)
        assert frame, f"nothing came to rank {rank}"
        return frame

    # --- the coordinator ---

    def hear(self, *kinds: type) -> Any:
        """The next message of these kinds, others are let pass."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.look()
            if not self.router.poll(5):
                continue
            peer, data = self.router.recv_multipart()
            message = msg.decode(data)
            rank = getattr(message, "rank", None)
            if rank is not None:
                self.peers[rank] = peer
            if isinstance(message, kinds):
                return message
        raise AssertionError(f"heard no {kinds}")

    def say(self, rank: int, message: msg.Message) -> None:
        self.router.send_multipart([self.peers[rank], msg.encode(message)])

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for port in self.ports.values():
            port.close()
        self.router.close(linger=0)
        self.context.term()
