"""The `rdma` benchmark: what the way through two rdma processes costs, against a bare group and the
ZeroMQ link, all over loopback; and what a reader sees when it is taken or lost (gaps.py).

Each pair of contestants has a core for each of its two machines: a stage's end shares one with its
rdma process. All take turns within a round.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.calm import Calm
from benchmarks.models import STATE
from benchmarks.options import Options
from benchmarks.rdma import gaps
from benchmarks.rdma.rig import Rig
from benchmarks.report import Check, Fact, at_least, at_most
from benchmarks.rounds import interleave
from benchmarks.worker import Worker, ask_all, free_ports
from daemon.supervisor.node import ALLOCATOR

CORES = (0, 1)
SMALL = 4096
TRIPS = 1000
ARRAYS = 8
HANDOVER_US = 40.0  # between a stage and its rdma process, p50
SLACK_US = 40.0  # of a round trip, beyond the bare group's and four hand-overs
BANDWIDTH = 0.8  # of the ZeroMQ link's


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    trips = 50 if options.quick else TRIPS
    arrays = 2 if options.quick else ARRAYS
    calm = Calm(options.patience)
    handovers: list[tuple[float, float]] = []  # of each round: down and up
    with ExitStack() as stack:
        rig = stack.enter_context(Rig(STATE / "rdma", CORES))
        bare = _pair(stack, "ring", _hosts())
        zmq = _zmq(stack)

        def ours() -> float:
            taken = _ping(rig.ends, trips)
            up = [end.ask(op="handover")["us"] for end in rig.ends]
            handovers.append((statistics.mean(rig.handover_us()), statistics.mean(up)))
            return taken

        small = interleave(
            {"rdma": ours, "bare": partial(_ping, bare, trips), "zmq": partial(_ping, zmq, trips)},
            options.counted,
            turn=calm.turn,
        )
        large = interleave(
            {
                "rdma": partial(_give, rig.ends, arrays),
                "bare": partial(_give, bare, arrays),
                "zmq": partial(_give, zmq, arrays),
            },
            options.counted,
            turn=calm.turn,
        )
    counted = handovers[-options.counted :]
    down, up = (statistics.median(one) for one in zip(*counted, strict=True))
    trip, bare_trip = small.median("rdma"), small.median("bare")
    allowed = bare_trip + 2 * (down + up) + SLACK_US
    checks = [
        at_most("handover_us.stage_to_rdma", down, HANDOVER_US),
        at_most("handover_us.rdma_to_stage", up, HANDOVER_US),
        at_most("round_trip_4KB_us", trip, float(f"{allowed:.4g}")),
        at_least("array_16MB_over_zmq", large.ratio("rdma", "zmq"), BANDWIDTH),
    ]
    facts = [
        Fact("round_trip_4KB.bare_us", bare_trip, "us"),
        Fact("round_trip_4KB.zmq_us", small.median("zmq"), "us"),
        Fact("round_trip_4KB.beyond_bare_and_handovers_us", trip - allowed + SLACK_US, "us"),
        *(Fact(f"array_16MB.{name}_MBps", large.median(name), "MB/s") for name in large.values),
        Fact("array_16MB_over_zmq.best", large.best_ratio("rdma", "zmq")),
    ]
    notes = [
        "Over MLX's ring back end on loopback: this says nothing about Thunderbolt. No JACCL"
        " measurement was made by anyone.",
        "A hand-over is measured in the round trips themselves, from before the frame is encoded"
        " (or the block received) until the other process has it (or has decoded it).",
        "round_trip_4KB's target is the bare group's round trip of this run + 4 hand-overs of this"
        f" run + {SLACK_US:g} us.",
        "Four processes share two cores: a stage's end and its rdma process one. The bare group"
        " spins while it receives, and knows all sizes beforehand.",
        calm.note(),
    ]
    found = gaps.measure(options)
    return checks + found[0], facts + found[1], notes + found[2]


def _pair(stack: ExitStack, kind: str, where: str) -> list[Worker]:
    found = []
    for rank, core in enumerate(CORES):
        arguments = ["--kind", kind, "--rank", str(rank), "--where", where]
        worker = Worker("benchmarks.rdma.ends", arguments, core=core, environment=ALLOCATOR)
        found.append(stack.enter_context(worker))
    ask_all(found, op="ready")
    return found


def _hosts() -> str:
    hosts = STATE / "rdma-bare.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]))
    return str(hosts)


def _zmq(stack: ExitStack) -> list[Worker]:
    pair = _pair(stack, "zmq", "")
    addresses = [end.ask(op="ready")["address"] for end in pair]
    for end, address in zip(pair, reversed(addresses), strict=True):
        end.ask(op="connect", address=address)
    return pair


def _ping(pair: Sequence[Worker], times: int) -> float:
    """Microseconds there and back, the median."""
    return _both(pair, ("ping", "echo"), size=SMALL, times=times)["us"]


def _give(pair: Sequence[Worker], times: int) -> float:
    """MB/s from MLX array to MLX array, until the last one's arrival is known."""
    return _both(pair, ("give", "take"), times=times)["MBps"]


def _both(pair: Sequence[Worker], ops: tuple[str, str], **arguments: int) -> dict[str, float]:
    first, second = pair
    second.send(op=ops[1], **arguments)
    found: dict[str, float] = first.ask(op=ops[0], **arguments)
    second.receive()
    return found
