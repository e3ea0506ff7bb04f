"""The rdma process with lines that stay awake, as over JACCL, which there is not here: what it says
and does for that passes over the ring back end just as well.
"""

from __future__ import annotations

import socket

from daemon.rdma import __main__, forming
from daemon.rdma.line import Line


class AwakeLine(Line):
    def __init__(self, me: int, rank: int, beside: socket.socket, stays_awake: bool) -> None:
        super().__init__(me, rank, beside, stays_awake=True)


if __name__ == "__main__":
    forming.Line = AwakeLine  # type: ignore[misc]
    __main__.main()
