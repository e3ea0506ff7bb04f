"""What one machine by itself may offer to a group, or why nothing."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.thunderbolt.facts import Machine, device_of
from daemon.thunderbolt.verdicts import Word, of_machine, of_port


@dataclass(frozen=True, slots=True)
class Offer:
    """`devices` that JACCL could use now; where there are none, `why_not` says why. `unplugged` are
    those whose ports have no cable, for certain.
    """

    boot: str
    devices: list[str]
    unplugged: list[str]
    why_not: str


def offer(machine: Machine) -> Offer:
    # By its interface: the tools that know of devices may hang.
    unplugged = [
        device_of(port.interface)
        for port in machine.ports
        if port.interface and port.connected == "no"
    ]
    verdicts = [(port, of_port(machine, port)) for port in machine.ports]
    devices = [port.device for port, verdict in verdicts if verdict.word is Word.READY]
    if devices:
        return Offer(machine.boot, devices, unplugged, "")
    # Of a port that somebody has connected, rather than of an empty one.
    told = [v for _, v in verdicts if v.word is not Word.LINK_DOWN] or [v for _, v in verdicts]
    verdict = of_machine(machine) or (told[0] if told else None)
    if verdict is None:
        how = machine.tools.get("system_profiler", "was not asked")
        why = f"no Thunderbolt port is known: `system_profiler` {how}"
        return Offer(machine.boot, [], unplugged, why)
    todo = f"; {verdict.todo}" if verdict.todo else ""
    return Offer(machine.boot, [], unplugged, f"{verdict.word.value}: {verdict.reason}{todo}")
