"""`python -m daemon.draft CONFIG INCARNATION PARENT`: a draft process, started by the shardd of
that incarnation and pid.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from daemon import logs
from daemon.config import EX_CONFIG, load
from daemon.coordinator.models import UnknownModel
from daemon.draft.process import DraftProcess
from daemon.engine import kernels
from daemon.engine.errors import LoadError
from daemon.service import compute_in_batches, dump_stacks_on_request


def main() -> None:
    config = load(Path(sys.argv[1]))
    logs.setup(config.log.format, config.log.level, config.node.name, "draft")
    dump_stacks_on_request()
    kernels.enter()
    compute_in_batches()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is shardd's to handle
    try:
        process = DraftProcess(config, sys.argv[2], int(sys.argv[3]))
        signal.signal(signal.SIGTERM, lambda signum, frame: process.stop())
        process.run()
    except (UnknownModel, LoadError) as error:  # another start would find the same
        logs.get("draft").error("no draft with %s: %s", config.node.draft, error)
        sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
