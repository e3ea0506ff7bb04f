"""What only somebody at the machine can do: the flag of RDMA is set in Recovery."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.verdicts import Word, of_machine

SECURITY = (
    "RDMA lets what is at the other end of a Thunderbolt cable reach this machine's memory, and "
    "what it carries is not encrypted: connect only machines that are yours"
)


def nodes(machines: Mapping[str, Machine]) -> list[str]:
    """Those whose flag is off and whose hardware is certain to have RDMA. No others."""
    verdicts = {node: of_machine(machine) for node, machine in machines.items()}
    return sorted(n for n, v in verdicts.items() if v is not None and v.word is Word.NEEDS_RECOVERY)


def steps(names: list[str]) -> list[str]:
    """How to turn it on, for these nodes, one line per step; [] for none."""
    return _steps(names, "enable", "on") if names else []


def undo(names: list[str]) -> list[str]:
    """How to turn it off again."""
    return _steps(names, "disable", "off") if names else []


def _steps(names: list[str], word: str, state: str) -> list[str]:
    return [
        f"1. on {', '.join(names)}: somebody has to be there, and what runs on the machine ends",
        "2. shut the machine down",
        "3. hold the power button until the start-up options appear",
        "4. choose Options, then Continue; in the menu Utilities ▸ Terminal",
        f"5. type: rdma_ctl {word}",
        "6. restart the machine",
        f"7. `shardctl rdma status` then says that RDMA is {state}",
    ]
