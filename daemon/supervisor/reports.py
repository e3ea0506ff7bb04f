"""What a shardd tells of itself: to the coordinator, and to its children."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import Any

import psutil
import yaml

from daemon import messages as msg
from daemon.config import Config
from daemon.version import VERSION

LOG_BYTES = 4 << 20  # of lines in one answer; a message may have twice as much


def hello(config: Config, incarnation: str, term: int) -> msg.NodeHello:
    return msg.NodeHello(
        msg.PROTOCOL,
        VERSION,
        config.node.name,
        incarnation,
        os.getpid(),
        socket.gethostname(),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        platform.python_version(),
        os.cpu_count() or 1,
        config.node.max_memory or psutil.virtual_memory().total,
        term,
    )


def fitting(lines: list[str]) -> list[str]:
    """As many of the last lines as one message may have."""
    left = LOG_BYTES
    for count, line in enumerate(reversed(lines)):
        left -= len(line.encode("utf-8", "replace")) + 8
        if left < 0:
            return lines[len(lines) - count :]
    return lines


def write_resolved(config: Config) -> Path:
    """The configuration as it is in force: what the children read."""
    config.node.state_dir.mkdir(parents=True, exist_ok=True)
    path: Path = config.node.state_dir / "config.resolved.yaml"
    path.write_text(yaml.safe_dump(_without_unset(config.to_mapping()), sort_keys=False))
    return path


def _without_unset(mapping: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it is written in a file: what is not set does not stand there."""
    return {
        key: _without_unset(value) if isinstance(value, dict) else value
        for key, value in mapping.items()
        if value is not None
    }
