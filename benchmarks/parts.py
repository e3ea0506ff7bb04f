"""Benchmarks of single parts: a hop, and the coordinator's own work."""

from __future__ import annotations

from benchmarks.options import Options
from benchmarks.report import Check, Fact, at_most

# What the scheduler and the codec may take together, microseconds, by sequences in flight.
COORDINATOR = {1: 300.0, 64: 1000.0}


def run_hop(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    """No issue sets a target for it; the numbers say what a hop may cost at most."""
    from benchmarks.hop import measure

    found = measure(2 if options.quick else options.rounds)
    return [], [Fact(name, value) for name, value in found.items()], []


def run_coordinator(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    from benchmarks.coordinator import measure

    found = measure()
    checks = [
        at_most(
            f"coordinator_us_p50.{count}", found[f"us_p50_{count}"] + found["codec_us_p50"], most
        )
        for count, most in COORDINATOR.items()
    ]
    facts = [Fact(name, value, "us") for name, value in found.items()]
    note = "Scheduling plus writing and reading the frame, simulated: no sockets, no model."
    return checks, facts, [note]
