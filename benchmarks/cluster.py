"""Our side of the comparisons: a local cluster, as a rule with one core per stage, and a client
that times every token.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.models import STATE
from benchmarks.options import STOCK
from benchmarks.requests import ClusterError, Requests, Stream
from benchmarks.worker import free_ports
from daemon import local
from daemon.local import node

READY_SECONDS = 120.0


@dataclass(frozen=True)
class _Configured(local.LocalCluster):
    guessing: bool = False
    draft: str = ""
    hosts: Sequence[str] = ()
    codec: str = "raw"
    hidden_memory: int | None = None
    rdma: str = ""

    def node_config(self, index: int) -> dict[str, Any]:
        config = super().node_config(index)
        if self.hosts:
            config["node"]["data_address"] = f"tcp://{self.hosts[index]}:0"
            config["security"] = {"plain_networks": [f"{host}/32" for host in self.hosts]}
        if self.hidden_memory is not None:
            config["node"]["hidden_memory"] = self.hidden_memory
        if self.rdma:
            config["rdma"] = {"backend": self.rdma}
        if index == 0:
            config["coordinator"]["codec"] = self.codec
            config["coordinator"]["speculation"] = "auto" if self.guessing else "off"
            if self.draft:
                config["node"]["draft"] = self.draft
        return config


class BenchCluster:
    """A local cluster of `nodes` nodes, or of one for each part of `split`, each started as
    `python -m module`. Nothing is guessed unless `guessing`, by a `draft` model beside the first
    stage if one is named: other comparisons are of the pipeline itself. Node n is on `hosts[n]`, on
    loopback if none are named; hidden states travel in `codec`, and are kept in `hidden_memory`
    bytes, None: as many as usual. `rdma` is the back end of its groups, as usual if none is named.
    """

    def __init__(
        self,
        state: Path,
        folder: Path,
        split: Sequence[int] | None,
        module: str = "daemon",
        nodes: int = 2,
        guessing: bool = False,
        draft: str = "",
        hosts: Sequence[str] = (),
        codec: str = "raw",
        hidden_memory: int | None = None,
        rdma: str = "",
    ) -> None:
        names = [f"bench{number}" for number in range(len(split) if split else nodes)]
        plan = _Configured(
            state,
            f"tcp://{hosts[0] if hosts else '127.0.0.1'}:{free_ports(1)[0]}",
            "bench",
            folder,
            None if split is None else tuple(split),
            tuple(
                local.LocalNode(name, state / f"{name}.yaml", state / f"{name}.log")
                for name in names
            ),
            guessing=guessing,
            draft=draft,
            hosts=hosts,
            codec=codec,
            hidden_memory=hidden_memory,
            rdma=rdma,
        )
        if (left := local.find(state)) is not None:
            left.stop()  # of a benchmark that was killed
        before, node.SHARDD = node.SHARDD, (sys.executable, "-m", module)
        self.requests = Requests(plan.endpoint)
        try:
            self._cluster = plan.start(self._ready, READY_SECONDS)
            self._started()
        except BaseException:
            if (begun := local.find(state)) is not None:
                begun.stop()
            raise
        finally:
            node.SHARDD = before

    @property
    def endpoint(self) -> str:
        return self._cluster.endpoint

    def generate(self, texts: Sequence[str], tokens: int, **sampling: Any) -> list[Stream]:
        return self.requests.generate(texts, tokens, **sampling)

    def status(self) -> dict[str, Any]:
        return self.requests.ask("status")

    def children(self, module: str) -> list[int]:
        """The pids of those children of shardds that run this module, in the order of the nodes."""
        found = []
        for started in self._cluster.nodes:
            for child in psutil.Process(started.pid).children():
                with suppress(psutil.Error):  # it has just ended
                    if module in child.cmdline():
                        found.append(child.pid)
        return found

    def cpu_seconds(self) -> dict[int, float]:
        """Of all its processes so far, by pid."""
        spent = {}
        for started in self._cluster.nodes:
            root = psutil.Process(started.pid)
            for process in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
        return spent

    def await_draft(self) -> None:
        """ClusterError when its draft does not become ready."""
        deadline = time.monotonic() + READY_SECONDS
        while not any(draft["state"] == "ready" for draft in self.status()["drafts"]):
            if time.monotonic() > deadline:
                raise ClusterError(f"the draft was not ready in {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()
        self.requests.__exit__()

    def _started(self) -> None:
        """All nodes are ready."""

    def _ready(self) -> bool:
        try:
            status = self.requests.ask("status", timeout=1.0)
        except TimeoutError:
            return False
        if status["state"] not in ("idle", "loading", "ready", "degraded"):
            raise ClusterError(f"the cluster is {status['state']}: {status['reason']}")
        return bool(status["state"] == "ready")


class PinnedCluster(BenchCluster):
    """Node n, with all its children, on core n; the coordinator, a child of node 0, on the last
    one.

    `blas` "stock" starts stages without an optimised BLAS, which no operator would want; see
    benchmarks/stock_shardd.py. `name` is what tells clusters apart that run at the same time,
    `module` what is started in place of shardd.
    """

    def __init__(
        self,
        folder: Path,
        split: Sequence[int] | None,
        blas: str = "",
        nodes: int = 2,
        guessing: bool = False,
        draft: str = "",
        name: str = "",
        module: str = "",
        hosts: Sequence[str] = (),
        codec: str = "raw",
        hidden_memory: int | None = None,
        rdma: str = "",
    ) -> None:
        state = STATE / f"cluster-{name or blas or 'default'}"
        module = module or ("benchmarks.stock_shardd" if blas == STOCK else "daemon")
        super().__init__(
            state, folder, split, module, nodes, guessing, draft, hosts, codec, hidden_memory, rdma
        )

    def _started(self) -> None:
        cores = os.cpu_count() or 1
        for core, started in enumerate(self._cluster.nodes):
            pin_tree(started.pid, core % cores)
        pin_coordinator(self._cluster.nodes[0].pid, (len(self._cluster.nodes) - 1) % cores)


def pin_coordinator(shardd: int, core: int) -> None:
    """To the core of the last stage: there it tells clients what came while the first stage, and
    with it the next token, goes on.
    """
    for child in psutil.Process(shardd).children():
        if any(word.endswith(".coordinator") for word in child.cmdline()):
            pin_tree(child.pid, core)


def pin_tree(pid: int, core: int) -> None:
    """Every thread of a process and of its descendants to one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error):
            for thread in process.threads():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, {core})
