"""`Config`: all sections, where each value came from, and the rules between sections."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from daemon.config.errors import ConfigError
from daemon.config.parse import is_private, model_folders, split_address
from daemon.config.sections import (
    CoordinatorConfig,
    LogConfig,
    NodeConfig,
    RdmaConfig,
    SecurityConfig,
    TimeoutsConfig,
    setting,
)
from daemon.config.values import Value


class Setting(NamedTuple):
    """One key of the file; `section` is empty for `models`, which is a mapping of its own."""

    path: str
    section: str
    name: str
    check: Callable[[Value], Any]

    @property
    def variable(self) -> str:
        """The environment variable that overrides the file."""
        return "SHARDBUS_" + self.path.upper().replace(".", "_")


SECTIONS: dict[str, type[Any]] = {
    "node": NodeConfig,
    "coordinator": CoordinatorConfig,
    "security": SecurityConfig,
    "rdma": RdmaConfig,
    "timeouts": TimeoutsConfig,
    "log": LogConfig,
}


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration. `file` is None when there was none; `origins` maps the dotted path
    of every value to `FILE:LINE`, `env NAME`, `flag` or `default`.
    """

    node: NodeConfig = field(default_factory=NodeConfig)
    coordinator: CoordinatorConfig = field(default_factory=CoordinatorConfig)
    models: Mapping[str, Path] = setting(
        model_folders, factory=lambda: MappingProxyType[str, Path]({})
    )
    security: SecurityConfig = field(default_factory=SecurityConfig)
    rdma: RdmaConfig = field(default_factory=RdmaConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def get(self, path: str) -> Any:
        """The value at a dotted path."""
        value: Any = self
        for name in path.split("."):
            value = getattr(value, name)
        return value

    def origin(self, path: str) -> str:
        """Where the value at a dotted path came from."""
        return self.origins.get(path, "default")

    def to_mapping(self) -> dict[str, Any]:
        """Plain data for JSON and YAML: bytes and seconds as numbers, paths as text."""
        found: dict[str, Any] = {}
        for known in SETTINGS:
            section = found.setdefault(known.section, {}) if known.section else found
            section[known.name] = _plain(self.get(known.path))
        return found

    def differences(self, other: Config) -> tuple[str, ...]:
        """The dotted paths whose values differ: what a reload would change."""
        return tuple(s.path for s in SETTINGS if self.get(s.path) != other.get(s.path))

    def check(self) -> None:
        """Raise ConfigError for a rule between two settings that does not hold."""
        self._check_plain("node.data_address", "plain ZeroMQ is")
        self._check_plain("coordinator.address", "plain ZeroMQ is")
        if self.rdma.address:
            self._check_plain("rdma.address", "the groups of mlx are")
            if ipaddress.ip_address(split_address(self.rdma.address).host).version != 4:
                raise self._error(
                    "rdma.address",
                    f"is '{self.rdma.address}'",
                    "mlx takes nothing but IPv4 addresses for its groups",
                    "give this machine an IPv4 address on the cable, and write that",
                )
        if not _loopback(self.coordinator.address) and _loopback(self.node.data_address):
            raise self._error(
                "node.data_address",
                "is loopback, but coordinator.address is not",
                "stages on other machines could not send to this one",
                "set node.data_address to this machine's address, with port 0",
            )
        split, nodes = self.coordinator.split, self.coordinator.nodes
        if split and nodes and len(split) != len(nodes):
            raise self._error(
                "coordinator.split",
                f"has {len(split)} numbers for {len(nodes)} nodes",
                "each node of coordinator.nodes holds one range of layers",
                "make the two lists equally long",
            )
        if self.timeouts.dead_after_s < 2 * self.timeouts.heartbeat_s:
            raise self._error(
                "timeouts.dead_after_s",
                f"is {self.timeouts.dead_after_s:g}",
                "a node must be able to miss one heartbeat without being declared dead",
                f"make it at least {2 * self.timeouts.heartbeat_s:g}, twice timeouts.heartbeat_s",
            )

    def _check_plain(self, path: str, what_is: str) -> None:
        host = split_address(self.get(path)).host
        ip = ipaddress.ip_address(host)
        if ip.is_loopback or any(ip in network for network in self.security.plain_networks):
            return
        cable = ipaddress.ip_network(ip).supernet(new_prefix=24 if ip.version == 4 else 64)
        todo = f"if only your nodes are on that network, add it, for example '{cable}'"
        if not is_private(cable):
            todo = "use an address in a private network"
        raise self._error(
            path,
            f"is on {host}, which is neither loopback nor in security.plain_networks",
            f"{what_is} neither encrypted nor authenticated",
            todo,
        )

    def _error(self, path: str, what: str, why: str, todo: str) -> ConfigError:
        where = self.origin(path)
        if where == "default":
            where = str(self.file or "defaults")
        return ConfigError(where, f"{path} {what}", why, todo)


def _loopback(address: str) -> bool:
    return ipaddress.ip_address(split_address(address).host).is_loopback


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _settings() -> Iterator[Setting]:
    for outer in fields(Config):
        if outer.name in SECTIONS:
            for inner in fields(SECTIONS[outer.name]):
                path = f"{outer.name}.{inner.name}"
                yield Setting(path, outer.name, inner.name, inner.metadata["check"])
        elif "check" in outer.metadata:
            yield Setting(outer.name, "", outer.name, outer.metadata["check"])


SETTINGS: tuple[Setting, ...] = tuple(_settings())
