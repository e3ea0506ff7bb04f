"""A stage or coordinator process whose shardd is gone ends, whatever it is doing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BEAT = """
import signal, sys, time
import zmq
from daemon.stage import heartbeat
heartbeat.ENDING_SECONDS = 0.3
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
beat = heartbeat.Heartbeat(
    zmq.Context(), "tcp://127.0.0.1:9", "n", "i", 0.05,
    heartbeat.Progress(), heartbeat.Clock(), lambda: None, int(sys.argv[1]),
)
beat.start()
while not asked:
    time.sleep(0.01)
print("asked", flush=True)
time.sleep(60)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_process_that_hangs_is_ended_all_the_same() -> None:
    """Its parent is not the one it was started by, from the first beat on."""
    done = subprocess.run(
        [sys.executable, "-c", BEAT, "1"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("asked\n", -signal.SIGKILL), done.stderr


@pytest.mark.parametrize("child", ["stage", "coordinator"])
def test_a_child_that_starts_when_shardd_is_gone_ends(tmp_path: Path, child: str) -> None:
    config = tmp_path / "node.yaml"
    settings = {
        "node": {"name": "n", "state_dir": str(tmp_path)},
        "coordinator": {"address": f"tcp://127.0.0.1:{free_port()}"},
    }
    config.write_text(yaml.safe_dump(settings))
    arguments = [str(config), *(["i"] if child == "stage" else []), "1"]
    done = subprocess.run(
        [sys.executable, "-m", f"daemon.{child}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "shardd is gone" in done.stderr
