"""`shardd` and `python -m daemon`: start this machine's daemon."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from daemon import logs
from daemon.config import Config, ConfigError, load
from daemon.service import config_exit_code
from daemon.supervisor.node import Shardd
from daemon.version import VERSION


def main() -> None:
    parser = argparse.ArgumentParser(prog="shardd", description="This machine's part of a cluster.")
    parser.add_argument("--config", type=Path, help="configuration file (YAML)")
    version = VERSION
    parser.add_argument("--version", action="version", version=f"shardd {version}")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
    except ConfigError as error:
        print(f"shardd: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        sys.exit(config_exit_code())
    logs.setup(config.log.format, config.log.level, config.node.name, "shardd")
    sys.exit(asyncio.run(_run(config)))


async def _run(config: Config) -> int:
    return await Shardd(config).run()


if __name__ == "__main__":
    main()
