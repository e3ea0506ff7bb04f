"""Benchmarks of single parts: a hop, and the coordinator's own work."""

from __future__ import annotations

from benchmarks.options import Options
from benchmarks.report import Check, Fact, at_most

# Keys of benchmarks.coordinator.measure that have a target, microseconds.
COORDINATOR = {"us_p50_1": 300.0, "us_p50_64": 1000.0}


def run_hop(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    """No issue sets a target for it; the numbers say what a hop may cost at most."""
    from benchmarks.hop import measure

    found = measure(2 if options.quick else options.rounds)
    return [], [Fact(name, value) for name, value in found.items()], []


def run_coordinator(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    from benchmarks.coordinator import measure

    found = measure()
    checks = [
        at_most(f"coordinator_{key}", found.get(key), target) for key, target in COORDINATOR.items()
    ]
    rest = [Fact(name, value) for name, value in found.items() if name not in COORDINATOR]
    return checks, rest, ["The scheduler's work per microbatch, simulated: no sockets, no model."]
