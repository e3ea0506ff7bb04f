"""Which Macs have Thunderbolt 5. Only "no" and "yes" that are known; else None."""

from __future__ import annotations

import re

from daemon.thunderbolt.facts import Machine, Port

THUNDERBOLT_4 = 40  # Gb/s: no more than this is asked of it, and a Thunderbolt 5 port idles above
# M3 Ultra and M4 Max Studio, M4 Pro mini, MacBook Pro with M4 Pro, M4 Max, M5 Max.
MODELS_WITH = (
    "Mac15,14", "Mac16,5", "Mac16,6", "Mac16,7", "Mac16,8", "Mac16,9", "Mac16,11", "Mac16,15",
    "Mac17,6", "Mac17,7",
)  # fmt: skip
# With a plain M4: MacBook Pro 14, iMac, mini, MacBook Air.
MODELS_WITHOUT = ("Mac16,1", "Mac16,2", "Mac16,3", "Mac16,10", "Mac16,12", "Mac16,13")
# What came before M4; of Mac15 only the M3 Ultra has it.
_OLDER = re.compile(r"(MacBookPro|MacBookAir|MacBook|Macmini|iMac|iMacPro|MacPro)\d|Mac1[345],")
STUDIO = "Mac Studio"
STUDIO_MODELS = ("Mac15,14", "Mac16,9")
STUDIO_WITHOUT_RDMA = "en2"  # beside the Ethernet port


def has_thunderbolt_5(machine: Machine) -> bool | None:
    """By what its ports say, then by its model. None where neither says, or they contradict each
    other: a link of 40 Gb/s alone may be a cable's or a peer's fault.
    """
    by_model = model_has_thunderbolt_5(machine.model)
    if any(max(port.speed, port.most) > THUNDERBOLT_4 for port in machine.ports):
        return True
    if any(port.most for port in machine.ports):
        return None if by_model else False
    return by_model


def model_has_thunderbolt_5(model: str) -> bool | None:
    if model in MODELS_WITH:
        return True
    return False if model in MODELS_WITHOUT or _OLDER.match(model) else None


def is_port_without_rdma(machine: Machine, port: Port) -> bool:
    """The one Thunderbolt 5 port of a Mac Studio that does no RDMA."""
    studio = machine.name == STUDIO or machine.model in STUDIO_MODELS
    return studio and port.interface == STUDIO_WITHOUT_RDMA
