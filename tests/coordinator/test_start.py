"""A coordinator that cannot start says why in one line."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_state_dir_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = tmp_path / "node.yaml"
    settings = {
        "node": {"name": "n", "state_dir": str(tmp_path / "file")},
        "coordinator": {"address": f"tcp://127.0.0.1:{free_port()}", "run": True},
        "log": {"format": "text"},
    }
    config.write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [sys.executable, "-m", "daemon.coordinator", str(config), "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "node.state_dir cannot be used" in line
    assert str(tmp_path / "file") in line
