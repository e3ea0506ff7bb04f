"""The configuration of a node: one YAML file, environment variables and flags, checked as a whole
before anything starts.

`load()` gives a frozen `Config` or raises `ConfigError`, whose text is one line: where, what, why
and what to do. A daemon that gets one ends with `EX_CONFIG`, which systemd is told not to restart.
"""

from daemon.config.errors import EX_CONFIG, ConfigError
from daemon.config.load import find_file, load
from daemon.config.schema import SETTINGS, Config, Setting
from daemon.config.sections import (
    CoordinatorConfig,
    LogConfig,
    NodeConfig,
    RdmaConfig,
    SecurityConfig,
    TimeoutsConfig,
)

__all__ = [
    "EX_CONFIG",
    "SETTINGS",
    "Config",
    "ConfigError",
    "CoordinatorConfig",
    "LogConfig",
    "NodeConfig",
    "RdmaConfig",
    "SecurityConfig",
    "Setting",
    "TimeoutsConfig",
    "find_file",
    "load",
]
