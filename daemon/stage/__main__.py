"""`python -m daemon.stage CONFIG INCARNATION PARENT`: a stage process, started by the shardd of
that incarnation and pid.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from daemon import logs
from daemon.config import load
from daemon.engine import kernels
from daemon.service import compute_in_batches, dump_stacks_on_request
from daemon.stage.process import StageProcess


def main() -> None:
    config = load(Path(sys.argv[1]))
    logs.setup(config.log.format, config.log.level, config.node.name, "stage")
    dump_stacks_on_request()
    kernels.enter()
    process = StageProcess(config, sys.argv[2], int(sys.argv[3]))
    compute_in_batches()
    signal.signal(signal.SIGTERM, lambda signum, frame: process.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is shardd's to handle
    process.run()


if __name__ == "__main__":
    main()
