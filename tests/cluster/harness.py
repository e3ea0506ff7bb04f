"""A cluster of real processes on this machine, and what a test does to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from ctl.client import Client
from ctl.endpoint import Endpoint
from ctl.errors import CommandError

PATIENCE = 45.0  # seconds: the machine may be busy with other things
POLL = 0.02  # seconds
RESUME_SECONDS = 8.0  # that a request waits for its client
INJECTED = Path(__file__).parent / "injected"
T = TypeVar("T")


def until(check: Callable[[], T], what: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """The first true answer of `check`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        if time.monotonic() >= deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {text}")
        time.sleep(POLL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """One shardd per entry of `split`; the first runs the coordinator too."""

    def __init__(
        self,
        folder: Path,
        split: Sequence[int],
        models: Mapping[str, Path],
        *,
        model: str | None = "embedded",
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self.split = list(split)
        self.models = models
        self.model = model
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.marks = folder / "marks"
        self.names = [f"n{i + 1}" for i in range(len(split))]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._changes = changes or {}
        self._client: Client | None = None
        self.marks.mkdir(parents=True)

    # --- starting and ending ---

    def start(self, *, ready: bool = True) -> Cluster:
        try:
            for name in self.names:
                self.start_node(name)
            if ready:
                self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def start_node(self, name: str) -> subprocess.Popen[bytes]:
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self._config(name)), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SHARDBUS_")}
        root = str(Path(__file__).resolve().parents[2])
        environment["TMPDIR"] = tempfile.gettempdir()  # not what this process compiles into
        environment["PYTHONPATH"] = os.pathsep.join((str(INJECTED), root))
        environment["SHARDBUS_TEST_MARKS"] = str(self.marks)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "daemon", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        return self.processes[name]

    def _config(self, name: str) -> dict[str, Any]:
        first = name == self.names[0]
        coordinator: dict[str, Any] = {
            "address": self.address,
            "run": first,
            "cluster": "test",
            "nodes": self.names,
        }
        if first and self.model is not None:
            coordinator |= {"model": self.model, "split": self.split}
        config = {
            "node": {
                "name": name,
                "data_address": "tcp://127.0.0.1:0",
                "state_dir": str(self.folder / name),
            },
            "coordinator": coordinator,
            "models": {k: str(v) for k, v in self.models.items()},
            "timeouts": {"drain_s": 60, "resume_s": RESUME_SECONDS},
            "log": {"level": "info", "format": "text"},
        }
        for section, values in self._changes.get(name, {}).items():
            config[section] = {**config.get(section, {}), **values}
        return config

    def close(self) -> None:
        """End what this object started, by SIGKILL; nothing of it may be left."""
        self.forget_client()
        family = self.family()
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        for child in self.processes.values():
            child.wait()
        until(lambda: not self.family(), "processes left over")

    def family(self) -> list[psutil.Process]:
        """Every living process that was given a path in our folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if process.info["status"] != psutil.STATUS_ZOMBIE and any(
                word.startswith(f"{self.folder}{os.sep}") for word in words
            ):
                found.append(process)
        return found

    def logs(self) -> str:
        files = [*self.folder.glob("*.log"), *self.folder.glob("*/logs/*.log")]
        return "\n".join(f"== {f.name}\n{f.read_text()[-3000:]}" for f in sorted(files))

    # --- asking ---

    def client(self, timeout: float = 20.0) -> Client:
        """A new connection, to be used with `with`, in one thread."""
        return Client(Endpoint(self.address, "test"), timeout)

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """By a connection that is kept; call it from the test's own thread."""
        if self._client is None:
            self._client = self.client().__enter__()
        try:
            return self._client.request(verb, **arguments)
        except Exception:
            self.forget_client()
            raise

    def forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def state(self) -> str:
        """Of the cluster; '' while nobody answers."""
        try:
            return str(self.ask("status")["state"])
        except CommandError:
            return ""

    def wait_ready(self) -> None:
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended: {self.logs()}"
        until(lambda: self.state() == "ready", lambda: f"ready; {self.logs()[-6000:]}")

    def wait_nodes(self) -> None:
        """Every node's stage process has said hello."""

        def there() -> bool:
            try:
                return sum(1 for node in self.nodes() if node["stage_pid"]) == len(self.names)
            except CommandError:  # the coordinator is not there yet
                return False

        until(there, lambda: f"all nodes; {self.logs()[-6000:]}")

    def wait_down_and_up(self) -> None:
        """Until the pipeline that was up at the first call is replaced by another."""
        until(lambda: self.state() != "ready", "the loss is noticed")
        self.wait_ready()

    def nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = self.ask("nodes")["nodes"]
        return nodes

    def node(self, index: int) -> dict[str, Any]:
        return next(n for n in self.nodes() if n["name"] == self.names[index])

    def stage_pids(self) -> list[int]:
        pids = {n["name"]: n["stage_pid"] for n in self.nodes()}
        return [pids[name] for name in self.names]

    def coordinator_pid(self) -> int:
        return self.child_pid(0, "daemon.coordinator")

    def child_pid(self, index: int, module: str) -> int:
        shardd = psutil.Process(self.processes[self.names[index]].pid)
        for child in shardd.children():
            with suppress(psutil.Error):  # it has just ended
                if module in child.cmdline():
                    return child.pid
        return 0

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self.client() as client:
            chunks = [m.data for m in client.stream("events", {"limit": 1000})]
        return [c for c in chunks if c.get("kind") == kind]

    def reissues(self) -> int:
        return int(self.ask("status")["reissues"])

    def wait_empty(self) -> None:
        """No request runs; then all that was kept is evicted, and no stage holds anything."""
        until(lambda: not self.ask("ps")["sequences"], "every request has ended")
        self.ask("kv.evict", sequence="all")
        until(lambda: not self.ask("kv")["sequences"], "every sequence is released")

    # --- doing harm ---

    def kill_node(self, index: int) -> None:
        """As if its machine had lost its power: shardd first, so that it starts nothing again."""
        process = self.processes[self.names[index]]
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

    def kill_stage(self, index: int, sig: int = signal.SIGKILL) -> int:
        pid = self.child_pid(index, "daemon.stage")
        os.kill(pid, sig)
        return pid

    def mark(self, name: str, text: str = "1") -> Path:
        """Put a fault in place (injected/sitecustomize.py); the file that appears when it acts."""
        fresh = self.marks / f".{name}"
        fresh.write_text(text)
        fresh.rename(self.marks / name)
        return self.marks / f"{name}.done"


@contextmanager
def clean(cluster: Cluster) -> Iterator[None]:
    """Ready and empty, before a test and after it."""
    cluster.forget_client()
    cluster.wait_ready()
    yield
    for marker in cluster.marks.iterdir():
        marker.unlink()
    cluster.forget_client()
    cluster.wait_ready()
    cluster.wait_empty()
