"""The sections of the configuration: every key with its type, its default and its check.

This is the list of all settings; the loader, `shardctl config` and the test of the annotated
example read it. A default that depends on the machine is a factory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.config import parse
from daemon.config.errors import ConfigError
from daemon.config.values import Value


def setting(
    check: Callable[[Value], Any], default: Any = None, factory: Callable[[], Any] | None = None
) -> Any:
    """A dataclass field whose written value goes through `check`."""
    if factory is not None:
        return field(default_factory=factory, metadata={"check": check})
    return field(default=default, metadata={"check": check})


def default_name() -> str:
    """The host's short name."""
    name = os.uname().nodename.partition(".")[0]
    if not parse.NODE_NAME.match(name):
        why = "a name has letters, digits, - and _, at most 63"
        what = f"the host name '{name}' cannot be the node's name"
        raise ConfigError("defaults", what, why, "set node.name")
    return name


def default_state_dir() -> Path:
    """systemd's folder, else the user's."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Application Support/shardbus"))
    given = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(given) / "shardbus"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """This machine. Port 0 of `data_address` means any free port; `max_memory` None means that the
    daemon measures, `kv_memory` None that it takes what weights and a reserve leave.
    `hidden_memory` are bytes for the hidden states that were sent on, `kv_disk` those that saved KV
    may take, 0 for none. `draft` is the model that guesses
    here, None: none does.
    """

    name: str = setting(parse.node_name, factory=default_name)
    data_address: str = setting(parse.address(any_port=True), "tcp://127.0.0.1:0")
    state_dir: Path = setting(parse.path, factory=default_state_dir)  # noqa: RUF009 -- a field
    max_memory: int | None = setting(parse.size)
    kv_memory: int | None = setting(parse.size)
    hidden_memory: int = setting(parse.size_or_nothing, 256_000_000)
    kv_disk: int = setting(parse.size_or_nothing, 10_000_000_000)
    draft: str | None = setting(parse.model_ref)


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Where the coordinator is; what it loads when this node runs it."""

    address: str = setting(parse.address(any_port=False), "tcp://127.0.0.1:5570")
    run: bool = setting(parse.boolean, False)
    cluster: str = setting(parse.node_name, "shardbus")
    model: str | None = setting(parse.model_ref)
    split: tuple[int, ...] | None = setting(parse.counts)
    nodes: tuple[str, ...] = setting(parse.node_names, ())
    speculation: str = setting(parse.choice("auto", "off"), "auto")
    codec: str = setting(parse.choice("raw", "fp8", "int8", "auto"), "raw")
    rebalance: str = setting(parse.choice("off", "auto"), "off")


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Plain ZeroMQ runs on loopback and in these networks only."""

    plain_networks: tuple[parse.Network, ...] = setting(parse.networks, ())


@dataclass(frozen=True, slots=True)
class RdmaConfig:
    """What this node may do in a group of the RDMA process. `backend` auto takes JACCL where mlx
    and the machine have it. `address` None is the host of node.data_address; a port of 0 means any
    free one. `watchdog_s`: how long an operation that has begun may take. `group_starts`: how many
    groups may be started between two boots, None is 3 with JACCL and 1000 with others.
    """

    backend: str = setting(parse.choice("auto", "off", "jaccl", "ring", "nccl"), "auto")
    address: str | None = setting(parse.address(any_port=True))
    start_s: float = setting(parse.seconds(1, 300), 30.0)
    watchdog_s: float = setting(parse.seconds(0.2, 60), 2.0)
    group_starts: int | None = setting(parse.count(1, 1_000_000))


@dataclass(frozen=True, slots=True)
class TimeoutsConfig:
    """Seconds."""

    heartbeat_s: float = setting(parse.seconds(0.05, 10), 0.5)
    dead_after_s: float = setting(parse.seconds(0.2, 120), 2.5)
    replan_s: float = setting(parse.seconds(1, 1_000_000), 15.0)
    send_s: float = setting(parse.seconds(0.05, 60), 1.0)
    drain_s: float = setting(parse.seconds(0, 3600), 30.0)
    resume_s: float = setting(parse.seconds(0, 3600), 30.0)
    stop_s: float = setting(parse.seconds(0.5, 300), 5.0)


@dataclass(frozen=True, slots=True)
class LogConfig:
    level: str = setting(parse.choice("debug", "info", "warning", "error"), "info")
    format: str = setting(parse.choice("auto", "text", "json"), "auto")
