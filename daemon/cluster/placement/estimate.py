"""From what nodes and links have shown to what placement is asked, and why it leaves a node out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from daemon.cluster.events import ModelSpec
from daemon.cluster.placement.problem import (
    Hop,
    Host,
    Load,
    Network,
    Objective,
    Placement,
    PlacementError,
)
from daemon.cluster.placement.search import place

ASSUMED_SECONDS = 5e-4  # of a hop, where no link of the cluster has been measured
COORDINATOR = ""  # the name of the end that has no layers


@dataclass(frozen=True, slots=True)
class Measured:
    """A node, as `Host`, but that the head may not have been measured on it."""

    name: str
    layer_seconds: tuple[float, ...]
    head_seconds: float | None
    memory_bytes: int


def hosts_of(measured: Sequence[Measured], model: ModelSpec) -> tuple[Host, ...]:
    """Where the head was not measured it is taken to cost, beside a layer, what it does elsewhere;
    where it never was, what its bytes do.
    """
    layers = sum(model.layer_bytes)
    shares = [
        node.head_seconds / sum(node.layer_seconds)
        for node in measured
        if node.head_seconds is not None and sum(node.layer_seconds) > 0.0
    ]
    usual = median(shares) if shares else model.head_bytes / layers
    return tuple(
        Host(
            node.name,
            node.layer_seconds,
            usual * sum(node.layer_seconds) if node.head_seconds is None else node.head_seconds,
            node.memory_bytes,
        )
        for node in measured
    )


def load_of(model: ModelSpec, kv_bytes: int) -> Load:
    """With so many bytes of KV on each layer."""
    layers = tuple(nbytes + kv_bytes for nbytes in model.layer_bytes)
    return Load(layers, model.embedding_bytes, model.head_bytes)


def network_of(names: Sequence[str], known: Mapping[tuple[str, str], Hop]) -> tuple[Network, int]:
    """And how many hops were assumed: as the middle one of those that are known."""
    seconds = median(hop.seconds for hop in known.values()) if known else ASSUMED_SECONDS
    busy = median(hop.busy for hop in known.values()) if known else 0.0
    usual, ends = Hop(seconds, busy), (COORDINATOR, *names)
    pairs = [(a, b) for a in ends for b in ends if a != b]
    hops = {pair: known.get(pair, usual) for pair in pairs}
    none = Hop(0.0)
    network = Network(
        tuple(hops[COORDINATOR, name] for name in names),
        tuple(tuple(hops[a, b] if a != b else none for b in names) for a in names),
        tuple(hops[name, COORDINATOR] for name in names),
    )
    return network, sum(pair not in known for pair in pairs)


def left_out(
    hosts: Sequence[Host], load: Load, network: Network, objective: Objective, best: Placement
) -> dict[str, str]:
    """Why it is better without each of the hosts that have no layers."""
    used = {seat.host for seat in best.seats}
    found = {}
    for k, host in enumerate(hosts):
        if k in used:
            continue
        try:
            other = place(hosts, load, network, objective, (k,))
        except PlacementError:
            found[host.name] = "its memory is too small for a layer beside the others' limits"
            continue
        if objective is Objective.THROUGHPUT and other.slowest_seconds > best.slowest_seconds:
            what, (a, b) = "the slowest stage", (other.slowest_seconds, best.slowest_seconds)
        else:
            what, (a, b) = "a token", (other.round_seconds, best.round_seconds)
        found[host.name] = f"with it {what} would take {a * 1e3:.4g} ms instead of {b * 1e3:.4g}"
    return found
