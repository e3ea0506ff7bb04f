"""What goes wrong in a history, how often, and how many re-issues that may cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TROUBLE_SECONDS = 4.0  # after that nothing goes wrong any more


class Fault(Enum):
    DROP = "drop"
    DOUBLE = "double"
    DELAY = "delay"  # one frame; others overtake it
    STALL = "stall"  # the link: what comes after waits too
    ERROR = "error"  # the link says that it lost a frame


@dataclass(frozen=True, slots=True)
class Rates:
    """Per frame and link (one of `kinds`), per span, and per second."""

    link: float = 0.0
    kinds: tuple[Fault, ...] = tuple(Fault)
    failure: float = 0.0  # computing raises
    shortfall: float = 0.0  # a cache can be trimmed only to less
    kill: float = 0.0
    restart: float = 0.0  # a stage is there again at once, and holds nothing
    hang: float = 0.0
    layout: float = 0.0
    term: float = 0.0
    coordinator: float = 0.0
    rebalance: float = 0.0  # where the layouts are those of a cluster machine
    unwanted: float = 0.0  # per rebalance: it is given up at some moment
    turns: float = 0.0  # there: the path of some hop is wished to be another
    rdma: float = 0.0  # there: the group of rdma processes ends
    control: float = 0.0  # per message to or from a stage: it is lost, or comes twice


CALM = Rates()
LOSSES = Rates(link=0.1, kinds=(Fault.DROP, Fault.DOUBLE, Fault.DELAY))  # each touches one frame
LINKS = Rates(link=0.03)
STORM = Rates(link=0.3)
RESTARTS = Rates(link=0.02, failure=0.002, shortfall=0.002, restart=1.2)
STAGES = Rates(kill=0.15, hang=0.1, layout=0.2, term=0.1)
COORDINATORS = Rates(coordinator=1.0)
ALL = Rates(
    link=0.03,
    failure=0.01,
    shortfall=0.01,
    kill=0.1,
    hang=0.1,
    layout=0.1,
    term=0.1,
    coordinator=0.1,
)
MOVES = Rates(rebalance=4.0)
TROUBLED_MOVES = Rates(link=0.01, kill=0.15, hang=0.1, rebalance=4.0, unwanted=0.3, control=0.05)
TURNS = Rates(turns=16.0)
TURNING_MOVES = Rates(turns=16.0, rebalance=2.0)
PATHS = Rates(turns=24.0, rdma=3.0)
TROUBLED_PATHS = Rates(
    turns=16.0, rdma=1.0, link=0.01, kill=0.1, hang=0.05, rebalance=2.0, unwanted=0.2, control=0.05
)
