"""`python -m daemon.rdma CONFIG INCARNATION PARENT START`: an rdma process, started by the shardd
of that incarnation and pid. START is the coordinator's RdmaStart, encoded and in hexadecimal.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from daemon import logs
from daemon import messages as msg
from daemon.config import load
from daemon.rdma.ending import ARGUMENTS, Ending, end_on_errors
from daemon.rdma.process import RdmaProcess
from daemon.service import dump_stacks_on_request


def main() -> None:
    end_on_errors()
    config = load(Path(sys.argv[1]))
    logs.setup(config.log.format, config.log.level, config.node.name, "rdma")
    dump_stacks_on_request()
    process = RdmaProcess(config, sys.argv[2], int(sys.argv[3]), _start(sys.argv[4]))
    signal.signal(signal.SIGTERM, lambda signum, frame: process.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is shardd's to handle
    process.run()


def _start(text: str) -> msg.RdmaStart:
    try:
        message = msg.decode(bytes.fromhex(text))
    except (ValueError, msg.MessageError) as error:
        raise Ending(ARGUMENTS, f"what is to be started: {error}") from error
    if not isinstance(message, msg.RdmaStart):
        raise Ending(ARGUMENTS, f"what is to be started: {type(message).__name__}")
    return message


if __name__ == "__main__":
    main()
