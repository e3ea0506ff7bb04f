"""What MLX is told, per back end, and what is looked at before JACCL is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import messages as msg
from daemon.rdma import backends
from daemon.rdma.ending import Ending
from tests.rdma.rig import ROOT

HOSTS = ["10.0.0.1:5801", "10.0.0.2:5801", "10.0.0.3:5801"]


def jaccl(rank: int, cables: int = 1, open_ring: bool = False) -> msg.RdmaStart:
    """Three nodes, each pair with so many cables; `open_ring`: none between first and last."""
    names = [f"rdma_en{number}" for number in range(9)]
    matrix = [[names[3 * b : 3 * b + cables] if a != b else [] for b in range(3)] for a in range(3)]
    if open_ring:
        matrix[0][2] = matrix[2][0] = []
    return msg.RdmaStart(1, 4, "jaccl", rank, HOSTS, matrix)


def ring(rank: int, size: int = 3) -> msg.RdmaStart:
    return msg.RdmaStart(1, 4, "ring", rank, HOSTS[:size], [])


def test_the_ring_back_end(tmp_path: Path) -> None:
    found = backends.environment(ring(1), tmp_path / "run")
    assert found.keys() == {"MLX_RANK", "MLX_HOSTFILE"}
    assert found["MLX_RANK"] == "1"
    assert json.loads(Path(found["MLX_HOSTFILE"]).read_text()) == [[host] for host in HOSTS]
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_jaccl_as_a_mesh_and_as_a_ring(tmp_path: Path) -> None:
    mesh = backends.environment(jaccl(2), tmp_path)
    assert mesh.keys() == {"MLX_RANK", "MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR"}
    assert mesh["MLX_JACCL_COORDINATOR"] == HOSTS[0]
    assert json.loads(Path(mesh["MLX_IBV_DEVICES"]).read_text()) == [
        [None, "rdma_en3", "rdma_en6"],
        ["rdma_en0", None, "rdma_en6"],
        ["rdma_en0", "rdma_en3", None],
    ]
    two = backends.environment(jaccl(0, cables=2), tmp_path)
    assert two["MLX_JACCL_RING"] == "1"
    assert json.loads(Path(two["MLX_IBV_DEVICES"]).read_text())[1][0] == ["rdma_en0", "rdma_en1"]
    assert "MLX_JACCL_RING" in backends.environment(jaccl(0, open_ring=True), tmp_path)


def test_what_was_in_the_environment_does_not_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JACCL_RANK", "JACCL_IBV_DEVICES", "MLX_JACCL_RING", "MLX_METAL_FAST_SYNCH"):
        monkeypatch.setenv(name, "another's")
    monkeypatch.setenv("MLX_RANK", "5")
    backends.enter(backends.environment(ring(1), tmp_path))
    assert os.environ["MLX_RANK"] == "1"
    assert "JACCL_RANK" not in os.environ
    assert "MLX_JACCL_RING" not in os.environ
    assert "MLX_METAL_FAST_SYNCH" not in os.environ


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (ring(0), [1, 2]),
        (ring(1), [0, 2]),
        (ring(0, 2), [1]),
        (jaccl(1), [0, 2]),
        (jaccl(0, cables=2), [1, 2]),
    ],
)
def test_who_can_be_reached(start: msg.RdmaStart, expected: list[int]) -> None:
    assert backends.neighbours(start) == expected


@pytest.mark.parametrize(
    "start",
    [
        msg.RdmaStart(1, 4, "nccl", 0, HOSTS, []),
        msg.RdmaStart(1, 4, "ring", 3, HOSTS, []),
        msg.RdmaStart(1, 4, "ring", 0, HOSTS[:1], []),
        msg.RdmaStart(1, 4, "jaccl", 0, HOSTS, []),
        msg.RdmaStart(1, 4, "jaccl", 0, HOSTS, [[[], ["a"]], [["b"], []]]),
    ],
)
def test_a_group_that_cannot_be(start: msg.RdmaStart) -> None:
    with pytest.raises(Ending):
        backends.check(start)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("printf '    device  node GUID\\n    ------  ----\\n    rdma_en3  e0c5\\n'", "rdma_en6"),
        ("exit 1", "does not list rdma_en3, rdma_en6"),
        ("kill -SEGV $$", "does not list"),
        ("exec sleep 60", "hangs"),
        (None, "cannot be run"),
    ],
)
def test_devices_are_seen_before_jaccl_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, why: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    monkeypatch.setattr(backends, "LOOK_SECONDS", 0.2)
    if script:
        tool = tmp_path / "ibv_devices"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    with pytest.raises(Ending, match=why) as caught:
        backends.look_for_devices(jaccl(0))
    assert caught.value.reason == "devices"


def test_devices_that_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "ibv_devices"
    tool.write_text("#!/bin/sh\necho rdma_en3 x; echo rdma_en6 y\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    backends.look_for_devices(jaccl(0))


def test_a_group_whose_others_do_not_come_is_given_up(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from daemon import messages as msg\n"
        "from daemon.rdma.forming import form\n"
        "start = msg.RdmaStart(1, 1, 'ring', 0, ['127.0.0.1:0', '127.0.0.1:9'], [])\n"
        f"form(start, Path({str(tmp_path)!r}), 0.3, 0.3)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert process.returncode == 1
    assert process.stderr == "rdma start: waiting for the others of 2, 0.3 s at most\n"
