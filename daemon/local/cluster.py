"""The local cluster as a whole: all of it runs, or none of it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psutil

from daemon.local.errors import LocalError
from daemon.local.interrupts import held_back
from daemon.local.node import LocalNode, leads_session, size_of, spawn, tail

STATE_FILE = "cluster.json"
STATE_VARIABLE = "SHARDBUS_STATE"
CLUSTER = "local"
DRAIN_SECONDS = 5.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class LocalCluster:
    """What `cluster.json` says. `started` are our own children, when it was us who started it."""

    state: Path
    endpoint: str
    model: str
    folder: Path
    split: tuple[int, ...] | None
    nodes: tuple[LocalNode, ...]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False, repr=False)

    def coordinator_runs(self) -> bool:
        """Whether the first node, which runs the coordinator, is alive."""
        return self.nodes[0].process() is not None

    def running(self) -> list[LocalNode]:
        """The nodes that are alive."""
        return [node for node in self.nodes if node.process() is not None]

    def record(self) -> dict[str, Any]:
        """Plain data for JSON."""
        record = asdict(replace(self, started=[]))
        del record["started"]
        plain: dict[str, Any] = json.loads(json.dumps(record, default=str))
        return {"schema": 1, **plain}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `record` did not write."""
        nodes = tuple(
            LocalNode(
                str(n["name"]),
                Path(n["config"]),
                Path(n["log"]),
                int(n["pid"]),
                float(n["started"]),
            )
            for n in record["nodes"]
        )
        if not nodes:
            raise ValueError("no nodes")
        split = record["split"]
        return cls(
            Path(record["state"]),
            str(record["endpoint"]),
            str(record["model"]),
            Path(record["folder"]),
            None if split is None else tuple(map(int, split)),
            nodes,
        )

    def start(self, ready: Callable[[], bool], ready_seconds: float) -> LocalCluster:
        """Start every node and wait until `ready`; when anything goes wrong on the way, end them
        all before raising. Returns the cluster with its pids.
        """
        with self.lock():
            if (other := find(self.state)) is not None and other.running():
                raise LocalError(
                    f"a local cluster runs already in {self.state}",
                    f"its endpoint is {other.endpoint}",
                    "end it with `shardctl down`, or use another --state",
                )
            cluster = self
            self.prepare()
            offsets = {node.name: size_of(node.log) for node in self.nodes}
            try:
                for index, node in enumerate(self.nodes):
                    with held_back():  # nobody would end a node that is not in `cluster` yet
                        begun = spawn(node, self.started)
                        nodes = (*cluster.nodes[:index], begun, *cluster.nodes[index + 1 :])
                        cluster = replace(cluster, nodes=nodes)
                    cluster.save()
                cluster._wait(ready, ready_seconds, offsets)
            except BaseException:
                cluster._end(STOP_SECONDS)
                raise
        return cluster

    def stop(self, seconds: float = STOP_SECONDS) -> list[str]:
        """SIGTERM to all, SIGKILL to what is left after `seconds`. The names of those that ran."""
        with self.lock():
            return self._end(seconds)

    def kill(self) -> None:
        """SIGKILL to all, at once."""
        for process in self._family():
            with suppress(psutil.Error):
                process.kill()

    def kill_started(self) -> None:
        """SIGKILL to what this object has started so far, with all of it."""
        for child in self.started:
            with suppress(psutil.Error):
                for process in psutil.Process(child.pid).children(recursive=True):
                    process.kill()
            child.kill()

    def prepare(self) -> None:
        """Write the folder and the nodes' configurations."""
        import yaml

        for index, node in enumerate(self.nodes):
            (self.state / node.name).mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(self.node_config(index), sort_keys=False)
            node.config.write_text(text, encoding="utf-8")

    def node_config(self, index: int) -> dict[str, Any]:
        """The configuration of one node, as plain data."""
        coordinator: dict[str, Any] = {
            "address": self.endpoint,
            "run": index == 0,
            "cluster": CLUSTER,
            "nodes": [node.name for node in self.nodes],
        }
        if index == 0:
            coordinator["model"] = self.model
            if self.split is not None:
                coordinator["split"] = list(self.split)
        name = self.nodes[index].name
        return {
            "node": {
                "name": name,
                "data_address": "tcp://127.0.0.1:0",
                "state_dir": str(self.state / name),
            },
            "coordinator": coordinator,
            "models": {self.model: str(self.folder)},
            "timeouts": {"drain_s": DRAIN_SECONDS},
            "log": {"level": "info", "format": "text"},
        }

    def save(self) -> None:
        """Write `cluster.json`, whole or not at all."""
        path = self.state / STATE_FILE
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.record(), indent=2), encoding="utf-8")
        fresh.replace(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nobody else starts or ends this cluster meanwhile."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                why = f"another shardctl holds {self.state / 'lock'}"
                what = "the local cluster is being started or ended"
                raise LocalError(what, why, "wait for it") from error
            yield

    def _wait(self, ready: Callable[[], bool], seconds: float, offsets: Mapping[str, int]) -> None:
        deadline = time.monotonic() + seconds
        while True:
            for node, child in zip(self.nodes, self.started, strict=True):
                if (status := child.poll()) is not None:
                    raise LocalError(
                        f"node {node.name} ended while it was started",
                        f"exit status {status}" if status >= 0 else f"signal {-status}",
                        f"see {node.log}",
                        tail(node.log, offsets[node.name]),
                    )
            if ready():
                return
            if time.monotonic() >= deadline:
                first = self.nodes[0]
                what = f"the local cluster was not ready in {seconds:g} s"
                log = tail(first.log, offsets[first.name])
                raise LocalError(what, "its nodes run, but not all answer", f"see {first.log}", log)
            time.sleep(POLL_SECONDS)

    def _family(self) -> list[psutil.Process]:
        """Our nodes, their descendants, and orphans in the sessions of nodes that have ended."""
        found: dict[int, psutil.Process] = {}
        sessions = set()
        for node in self.nodes:
            if (process := node.process()) is not None:
                found[process.pid] = process
                with suppress(psutil.Error):
                    found.update((child.pid, child) for child in process.children(recursive=True))
            elif node.pid > 0 and not leads_session(node.pid):
                sessions.add(node.pid)  # a session's number is not given away while it has members
        for process in psutil.process_iter() if sessions else ():
            with suppress(psutil.Error, OSError):
                if os.getsid(process.pid) in sessions and process.pid not in sessions:
                    found[process.pid] = process
        return list(found.values())

    def _end(self, seconds: float) -> list[str]:
        running = self.running()
        family = self._family()
        for node in running:
            with suppress(ProcessLookupError):
                os.kill(node.pid, signal.SIGTERM)
        leaders = [process for node in running if (process := node.process()) is not None]
        psutil.wait_procs(leaders, timeout=seconds)
        for process in {*family, *self._family()}:
            with suppress(psutil.Error):
                process.kill()  # checks the start time itself
        psutil.wait_procs(family, timeout=5)
        for child in self.started:
            child.wait()
        (self.state / STATE_FILE).unlink(missing_ok=True)
        return [node.name for node in running]


def default_state() -> Path:
    """Where a local cluster lives when nobody says otherwise."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given).absolute()
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "shardbus" / "local"


def find(state: Path | None = None) -> LocalCluster | None:
    """The cluster that was last started in `state`, whether it still runs or not."""
    path = (state or default_state()) / STATE_FILE
    try:
        return LocalCluster.from_record(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = f"{path} cannot be understood"
        raise LocalError(what, str(error) or type(error).__name__, "remove it") from error
