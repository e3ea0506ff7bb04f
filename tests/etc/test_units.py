"""The service units: systemd's own checks, and the rules for launchd that can be read off."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.config import EX_CONFIG
from daemon.config.sections import TimeoutsConfig
from daemon.service import LAUNCHD_LABEL

ETC = Path(__file__).parents[2] / "etc"
PROGRAM = "/opt/shardbus/venv/bin/shardd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists: verify looks for it."""
    text = (ETC / "shardd.service").read_text()
    assert PROGRAM in text
    file = tmp_path / "shardd.service"
    program = '"' + sys.executable.replace("%", "%%") + '"'  # it may have a space in it
    file.write_text(text.replace(PROGRAM, program))
    return file


def settings(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value for key, equals, value in pairs if equals}


@needs_systemd
def test_systemd_finds_nothing_to_say(unit: Path) -> None:
    run = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    # verify ends with 0 even for unknown keys, so its words count.
    assert (run.stderr, run.returncode) == ("", 0)


@needs_systemd
def test_the_exposure_is_low(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level" in run.stdout


def test_the_unit_keeps_what_mlx_needs_and_fits_the_daemon() -> None:
    found = settings((ETC / "shardd.service").read_text())
    assert not found.keys() & {"MemoryDenyWriteExecute", "PrivateDevices", "ProcSubset"}
    assert found["RestartPreventExitStatus"] == str(EX_CONFIG)
    assert float(found["TimeoutStopSec"]) > TimeoutsConfig().drain_s + TimeoutsConfig().stop_s
    assert {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"} == set(
        found["RestrictAddressFamilies"].split()
    )


def test_the_launchd_job() -> None:
    job: dict[str, Any] = plistlib.loads((ETC / "io.shardbus.shardd.plist").read_bytes())
    kinds: dict[str, type] = {
        "Label": str,
        "ProgramArguments": list,
        "UserName": str,
        "WorkingDirectory": str,
        "EnvironmentVariables": dict,
        "RunAtLoad": bool,
        "KeepAlive": dict,
        "ThrottleInterval": int,
        "ExitTimeOut": int,
        "ProcessType": str,
        "SoftResourceLimits": dict,
        "Umask": int,
        "StandardOutPath": str,
        "StandardErrorPath": str,
    }
    assert {key: type(value) for key, value in job.items()} == kinds
    assert job["Label"] == LAUNCHD_LABEL
    assert job["ProgramArguments"][0] == PROGRAM
    paths = [job["WorkingDirectory"], job["StandardOutPath"], job["StandardErrorPath"]]
    paths += [job["EnvironmentVariables"]["HOME"], *job["ProgramArguments"][::2]]
    assert all(path.startswith("/") for path in paths)
    assert "~" not in str(job)
    assert all(isinstance(value, str) for value in job["EnvironmentVariables"].values())
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["ExitTimeOut"] > TimeoutsConfig().drain_s + TimeoutsConfig().stop_s
    assert job["ProcessType"] == "Interactive"
    assert job["Umask"] == 0o077
    assert not [word for word in str(job).lower().split() if "key" in word or "token" in word]


@pytest.mark.skipif(shutil.which("plutil") is None, reason="plutil is not on this machine")
def test_plutil_agrees() -> None:
    subprocess.run(["plutil", "-lint", ETC / "io.shardbus.shardd.plist"], check=True)
