"""What `shardctl plan` promises, and what the cluster then gives: the nodes hold an even split
first, from which they are known; the plan's own layout is started then, and measured.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster import BenchCluster
from benchmarks.models import STATE
from benchmarks.options import Options
from benchmarks.paced.plan import Kept
from benchmarks.placement.nodes import VARIABLE, Node, write
from benchmarks.report import Check, Fact, Table, at_most
from benchmarks.rounds import rate, window_rate
from daemon.cluster.placement.problem import Hop, Host, Load, Network, Objective
from daemon.cluster.placement.search import place
from daemon.embedded import TARGET

MS = 1e-3
MODULE = "benchmarks.placement.shardd"
TOLERANCE = 0.15
TOKENS, REPEATS = 60, 2
TEXTS = ("def f", "class A", "import os", "for i", "with a", "while x", "x = 1", "return y")
SHARE = 0.6  # of the model that one node may hold: else one stream is best off on the fastest alone
SEARCHES = ((8, 128, 1.0), (4, 80, 0.1))  # nodes, layers, and seconds at most
CLUSTERS = {
    "6, 12": (6, 12),
    "10, 5, 15": (10, 5, 15),
    "8, 24, 6, 12": (8, 24, 6, 12),
}  # milliseconds of a layer on each node; the head takes half as long again
HEAD_OF_TABLE = ("ms a layer", "objective", "streams", "layout", "predicted", "measured", "ratio")


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens per second. `layout`: node by node in the plan's order, its layers."""

    cluster: str
    objective: Objective
    streams: int
    layout: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return abs(self.predicted / self.measured - 1.0)

    def cells(self) -> list[str]:
        numbers = (f"{value:.4g} tok/s, paced" for value in (self.predicted, self.measured))
        ratio = f"{self.predicted / self.measured:.3f}, paced"
        words = (self.cluster, self.objective.value, str(self.streams), self.layout)
        return [*words, *numbers, ratio]


def run(options: Options) -> tuple[list[Check], list[Fact], list[str], Table]:
    rows, kept = [], Kept()
    for name, layers in list(CLUSTERS.items())[: 1 if options.quick else None]:
        nodes = [Node(ms * MS, 1.5 * ms * MS) for ms in layers]
        with _cluster(nodes, None, kept) as cluster:
            cluster.generate(TEXTS[:1], 8)  # so that its links are known
            plans = {
                Objective.LATENCY: _plan(cluster, Objective.LATENCY, SHARE),
                Objective.THROUGHPUT: _plan(cluster, Objective.THROUGHPUT, 1.0),
            }
        for objective, plan in plans.items():
            rows.append(_measured(name, nodes, objective, plan, options, kept))
            print(" | ".join(rows[-1].cells()), file=sys.stderr, flush=True)
    checks = [at_most(f"paced.prediction_error.{_id(row)}", row.error, TOLERANCE) for row in rows]
    for count, depth, most in SEARCHES:
        seconds = _search_seconds(count, depth, 3 if options.quick else 10)
        checks.append(at_most(f"search_seconds.{count}x{depth}", seconds, most))
    checks.append(Check("paced.overruns", float(kept.overruns), "<= 1 % of passes", kept.ok))
    facts = [Fact("passes, paced", float(kept.count))]
    notes = [
        "Paced: real daemons and the embedded model, every pass drawn out to its node's time; a "
        "further token in a pass takes as long as the first. Links are real, on loopback.",
        "Throughput is measured with twice as many streams as stages. For latency no node may hold "
        f"more than {SHARE:.0%} of the model.",
        "A search is the longest of all objectives on random nodes and links. That placements are "
        "those of brute force is what `tests/machine/test_placement.py` compares: 1,000 random "
        "clusters for each objective.",
    ]
    return checks, facts, notes, Table(HEAD_OF_TABLE, [row.cells() for row in rows])


@contextmanager
def _cluster(
    nodes: Sequence[Node], split: Sequence[int] | None, kept: Kept
) -> Iterator[BenchCluster]:
    """Nothing of an earlier one is known to it; how well its times were kept is added to `kept`."""
    state = STATE / "cluster-placement"
    for folder in state.glob("*/"):
        shutil.rmtree(folder)
    state.mkdir(parents=True, exist_ok=True)
    for told in state.glob("passes-*.json"):
        told.unlink()
    write(state / "nodes.json", {f"bench{i}": node for i, node in enumerate(nodes)})
    os.environ[VARIABLE] = str(state / "nodes.json")
    try:
        with BenchCluster(state, TARGET, split, MODULE, len(nodes)) as cluster:
            yield cluster
    finally:
        del os.environ[VARIABLE]
    kept.merge(Kept.told(state, "passes"))


def _plan(cluster: BenchCluster, objective: Objective, share: float) -> dict[str, Any]:
    """With so much of the model, its KV and all, on one node at most."""
    asked = {"objective": objective.value, "context": 512}
    plan = cluster.requests.ask("plan", timeout=60.0, **asked)
    needed = sum(stage["weights_bytes"] + stage["kv_bytes"] for stage in plan["stages"])
    names = [node["name"] for node in cluster.requests.ask("nodes")["nodes"]]
    memory = dict.fromkeys(names, int(share * needed))
    return cluster.requests.ask("plan", timeout=60.0, **asked, memory=memory)


def _measured(
    name: str,
    nodes: Sequence[Node],
    objective: Objective,
    plan: dict[str, Any],
    options: Options,
    kept: Kept,
) -> Row:
    """The plan's nodes in the plan's order, with its layers."""
    places = [int(stage["node"].removeprefix("bench")) for stage in plan["stages"]]
    layers = [_count(stage["layers"]) for stage in plan["stages"]]
    one = objective is Objective.LATENCY
    streams = 1 if one else 2 * len(places)
    tokens, repeats = (40, 1) if options.quick else (TOKENS, REPEATS)
    with _cluster([nodes[place] for place in places], layers, kept) as cluster:
        cluster.generate(TEXTS[:1], 8)
        rates = []
        for _ in range(repeats):
            times = [stream.times for stream in cluster.generate(TEXTS[:streams], tokens)]
            rates.append(rate(times[0]) if one else window_rate(times))
    layout = ", ".join(
        f"{1e3 * nodes[p].layer:g}: {n}" for p, n in zip(places, layers, strict=True)
    )
    promised = plan["tokens_per_second" if one else "tokens_per_second_full"]
    return Row(name, objective, streams, layout, promised, statistics.median(rates))


def _count(layers: str) -> int:
    """Of a range as it is shown: its first and its last layer, or the only one."""
    first, _, last = layers.partition("-")
    return int(last or first) - int(first) + 1


def _search_seconds(count: int, layers: int, clusters: int) -> float:
    """The longest search over random clusters of so many nodes."""
    rng, longest = random.Random(count), 0.0
    for _ in range(clusters):
        hosts = [
            Host(f"n{k}", (rng.uniform(1.0, 5.0),) * layers, rng.uniform(0.0, 9.0), layers)
            for k in range(count)
        ]
        load = Load((rng.randint(1, 3),) * layers, 2, 3)
        ends = tuple(Hop(rng.random(), rng.random()) for _ in hosts)
        between = tuple(tuple(Hop(rng.random(), rng.random()) for _ in hosts) for _ in hosts)
        for objective in Objective:
            began = time.perf_counter()
            place(hosts, load, Network(ends, between, ends), objective)
            longest = max(longest, time.perf_counter() - began)
    return longest


def _id(row: Row) -> str:
    return f"{row.cluster.replace(', ', '-')}.{row.objective.value}"
