"""Where the coordinator is: flag, then environment, then configuration, then a running local
cluster, then the default.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from daemon.config import Config

DEFAULT = "tcp://127.0.0.1:5570"
VARIABLE = "SHARDBUS_ENDPOINT"
_ADDRESS = re.compile(r"(tcp://)?(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, where it was found, and what was noticed on the way there."""

    address: str
    origin: str
    note: str = ""

    def hint(self) -> str:
        """What to do when nothing answers there."""
        start = "start one with `shardctl up` or pass --endpoint"
        if self.origin != "default":
            start += f" (this one came from {self.origin})"
        return f"{self.note}; {start}" if self.note else start


def resolve(flag: str | None) -> Endpoint:
    """The endpoint to use. Files are read only as far down the list as needed."""
    if flag is not None:
        return Endpoint(_checked(flag, "--endpoint"), "--endpoint")
    if given := os.environ.get(VARIABLE):
        return Endpoint(_checked(given, VARIABLE), VARIABLE)
    if configured := _from_config():
        return configured
    from daemon.local import LocalError, find

    try:
        local = find()
    except LocalError as error:
        raise CommandError(ExitCode.FAILED, error.what, error.why, error.todo) from error
    if local is None:
        return Endpoint(DEFAULT, "default")
    if local.coordinator_runs():
        note = f"its shardd runs, so wait a moment, or see {local.state}/{local.nodes[0].name}/logs"
        return Endpoint(local.endpoint, f"the local cluster in {local.state}", note)
    note = f"the local cluster in {local.state} has ended, see {local.nodes[0].log}"
    return Endpoint(DEFAULT, "default", note)


def load_config(path: str | None = None) -> Config:
    """The configuration; its errors become ours."""
    from daemon.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        what = f"{error.where}: {error.what}"
        raise CommandError(ExitCode.FAILED, what, error.why, error.todo) from error


def _from_config() -> Endpoint | None:
    """A configuration names the coordinator only when it says so itself; its default does not."""
    variable = "SHARDBUS_COORDINATOR_ADDRESS"
    if variable not in os.environ and not _has_config_file():
        return None
    config = load_config()
    if (origin := config.origin("coordinator.address")) == "default":
        return None
    return Endpoint(config.coordinator.address, origin)


def _has_config_file() -> bool:
    from daemon.config import find_file

    return find_file() is not None


def _checked(text: str, origin: str) -> str:
    match = _ADDRESS.match(text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise CommandError(
            ExitCode.USAGE,
            f"{origin} is {text!r}",
            "an endpoint is tcp://HOST:PORT",
            f"write for example {DEFAULT}",
        )
    return f"tcp://{match[2]}:{match[3]}"
