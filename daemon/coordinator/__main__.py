"""`python -m daemon.coordinator CONFIG PARENT`: the coordinator process, started by shardd, whose
pid is PARENT.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from daemon import logs
from daemon.config import EX_CONFIG, Config, load
from daemon.coordinator.process import Coordinator
from daemon.coordinator.reign import Occupied, Reign
from daemon.service import dump_stacks_on_request
from transports.errors import AddressError

BIND_SECONDS = 3.0  # that the address of a coordinator before this one may take to be free


def _bound(config: Config, parent: int, reign: Reign) -> Coordinator:
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            return Coordinator(config, parent, reign)
        except AddressError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def main() -> None:
    config = load(Path(sys.argv[1]))
    logs.setup(config.log.format, config.log.level, config.node.name, "coordinator")
    dump_stacks_on_request()
    try:
        reign = Reign(config.node.state_dir)
        coordinator = _bound(config, int(sys.argv[2]), reign)
    except (AddressError, Occupied) as error:
        logs.get("coordinator").error("%s", error)
        sys.exit(EX_CONFIG)
    except OSError as error:  # the term's file: without a new term nobody may be commanded
        logs.get("coordinator").error("node.state_dir cannot be used: %s", error)
        sys.exit(1)
    signal.signal(signal.SIGTERM, lambda signum, frame: coordinator.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is shardd's to handle
    coordinator.run()


if __name__ == "__main__":
    main()
