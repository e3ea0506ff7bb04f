"""An rdma process, from its arguments to its end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from daemon import logs
from daemon import messages as msg
from daemon.config import load
from daemon.rdma.ending import ARGUMENTS, Ending, end_on_errors
from daemon.rdma.process import RdmaProcess
from daemon.service import dump_stacks_on_request


def run(arguments: Sequence[str]) -> None:
    """For the arguments see __main__.py."""
    end_on_errors()
    file, incarnation, parent, start = arguments
    config = load(Path(file))
    logs.setup(config.log.format, config.log.level, config.node.name, "rdma")
    dump_stacks_on_request()
    process = RdmaProcess(config, incarnation, int(parent), _start(start))
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
