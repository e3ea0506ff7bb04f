"""What goes wrong with RDMA, by its words: MLX's errors, the system's, those of our own child.

The sources are public reports and MLX's own text (docs/rdma.md names them). No group is tried again
in a loop whatever is said here: every attempt that fails may cost the driver something that only a
restart gives back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.verdicts import REPLUG, Word, of_machine


@dataclass(frozen=True, slots=True)
class Advice:
    """A row of the table. `retry`: whether another attempt may go well with nothing changed in
    between; `reboot`: whether it may come to a restart of the machine. `marks` are what it is
    recognised by in text, `words` the verdicts that mean it.
    """

    row: str
    cause: str
    fix: str
    retry: bool = False
    reboot: bool = False
    marks: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()


TABLE = (
    Advice(
        "no-thunderbolt-5",
        "the machine has no Thunderbolt 5, whatever the flag says",
        "none: hidden states travel by ZeroMQ, and that is no error",
        words=(Word.UNSUPPORTED_HW,),
    ),
    Advice(
        "flag-off",
        "RDMA is off in macOS",
        "`rdma_ctl enable` in Recovery, at the machine, and a restart",
        reboot=True,
        words=(Word.NEEDS_RECOVERY,),
    ),
    Advice(
        "no-device",
        "RDMA is on, but the system has no device: not restarted since, or the driver is wedged",
        "restart the machine; compare the macOS builds",
        reboot=True,
        words=(Word.NEEDS_REBOOT, Word.WEDGED),
    ),
    Advice(
        "no-address",
        "the Thunderbolt port has no IPv4 address, without which it has no usable GID",
        "`shardctl rdma enable --fix` gives it one",
        marks=(r"No IPv4-mapped GID",),
        words=(Word.NEEDS_ADDRESS,),
    ),
    Advice(
        "rtr-22",
        "the port is in the Thunderbolt bridge, has no IPv4 GID, or has it at another index than 1",
        "`shardctl rdma enable --fix`: bridge off, one IPv4 address; MLX 0.32 or later",
        marks=(r"RTR failed with errno 22\b",),
        words=(Word.BRIDGE_ACTIVE,),
    ),
    Advice(
        "queue-pairs",
        "the device has all the queue pairs that it can have (ten): of processes that run, or that "
        "crashed",
        "end the other programs that use RDMA; if there are none, restart the machine",
        reboot=True,
        marks=(
            r"(INIT|RTR|RTS) failed with errno 16\b",
            r"Creating the queue pair failed with (errno 16\b|'[^']*\(16\)')",
        ),
    ),
    Advice(
        "gid-unreachable",
        "the peer's address is not in the subnet of this end of the cable",
        "`shardctl rdma enable --fix` gives both ends addresses of one subnet",
        marks=(r"RTR failed with errno (60|65)\b",),
    ),
    Advice(
        "no-route",
        "the system keeps this process from the local network, though the network is well",
        "System Settings ▸ Privacy & Security ▸ Local Network: off and on again for the program "
        "that started shardd; a shardd that launchd starts as root is exempt",
        marks=(r"\(error: 65\)", r"errno[ =:]*65\b", r"EHOSTUNREACH", r"No route to host"),
    ),
    Advice(
        "peer-not-listening",
        "the first rank did not listen (yet), or its address is not that of the cable",
        "see what the first rank's node says; it has to be reachable by TCP at the group's address",
        retry=True,
        marks=(r"Couldn't connect \(error: (2|60|61|110|111)\)", r"errno[ =:]*(60|61)\b"),
    ),
    Advice(
        "other-rank-failed",
        "another rank ended while the group was made, and closed what connects them",
        "see what the other nodes say",
        retry=True,
        marks=(r"(Recv|Send) failed with errno[ =:]*(0|2|32|54)\b",),
    ),
    Advice(
        "rtr-96",
        "the driver has no more room for connections, or the peer was not ready",
        "do not repeat it; if it comes again, restart both machines",
        reboot=True,
        marks=(r"RTR failed with errno 96\b",),
    ),
    Advice(
        "protection-domain",
        "the port is down, or earlier attempts have used up the driver's protection domains",
        "see that the port is active (`shardctl rdma status`); " + REPLUG,
        reboot=True,
        marks=(r"Couldn't allocate protection domain",),
    ),
    Advice(
        "device-gone",
        "the RDMA device that was named is not there; MLX before 0.32 crashes instead",
        "see `shardctl rdma status`; names of devices change when a machine restarts",
        marks=(
            r"Could not find device \S+ \(\d+ available\)",
            r"Could not open device",
            r"ibv_reg_mr",
        ),
    ),
    Advice(
        "memory-regions",
        "the device registers about a hundred memory regions, no more",
        "fewer nodes or cables in one group; end other programs that use RDMA",
        marks=(r"Register memory region failed",),
    ),
    Advice(
        "work-requests",
        "more than 32 receives were posted at once",
        "a fault of this program: report it",
        marks=(r"(Recv failed with error code|post_recv\D*) -?12\b",),
    ),
    Advice(
        "cable-pulled",
        "the cable was pulled, or the link went down, while frames passed",
        "put it in again; hops go on by ZeroMQ meanwhile",
        retry=True,
        marks=(r"tbt_post_(recv|send)",),
    ),
    Advice(
        "gpu-timeout",
        "the GPU waited for the network, and macOS ended it",
        "a fault of this program (or of MLX_METAL_FAST_SYNCH, which must not be set): report it",
        marks=(r"kIOGPUCommandBufferCallbackErrorTimeout", r"Caused GPU Timeout Error"),
    ),
    Advice(
        "peer-gone",
        "the other end is gone; JACCL itself would wait for ever",
        "nothing: the process was ended in time, hops go on by ZeroMQ",
        retry=True,
        marks=(r"\brdma (peer|stalled):",),
    ),
    Advice(
        "no-backend",
        "this MLX has no such back end: JACCL is built on macOS 26.2 and later alone",
        "none on Linux; on macOS install MLX's wheel of that system",
        marks=(r"\brdma backend:", r"no distributed back.?end", r"jaccl is not available"),
    ),
    Advice(
        "crashed",
        "MLX or the RDMA library crashed; that is known when a peer or a cable goes",
        "hops go on by ZeroMQ; if it comes again, restart the machine",
        retry=True,
        reboot=True,
        marks=(r"SIGSEGV", r"Segmentation fault", r"SIGBUS", r"SIGABRT"),
    ),
)  # fmt: skip
_MARKS = [(a, re.compile("|".join(a.marks), re.IGNORECASE)) for a in TABLE if a.marks]


def recognise(text: str) -> Advice | None:
    """The first row of which something stands in this text; None for what is new."""
    return next((advice for advice, marks in _MARKS if marks.search(text)), None)


def recognise_machine(machine: Machine) -> Advice | None:
    """The same of what a machine's tools have said."""
    verdict = of_machine(machine)
    if verdict is None:
        return None
    return next((advice for advice in TABLE if verdict.word in advice.words), None)
