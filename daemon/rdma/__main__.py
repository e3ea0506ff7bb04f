"""`python -m daemon.rdma CONFIG INCARNATION PARENT START`: an rdma process, started by the shardd
of that incarnation and pid. START is the coordinator's RdmaStart, encoded and in hexadecimal.
"""

from __future__ import annotations

import sys
from importlib import import_module

from daemon.rdma.nicely import nicely


def main() -> None:
    # A fifth of a second of a core that the stage beside this process computes on.
    nicely(lambda: import_module("daemon.rdma.run"))
    from daemon.rdma.run import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
