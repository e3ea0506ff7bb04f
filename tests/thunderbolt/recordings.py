"""Recorded outputs of a Mac's tools, and fake tools that replay them, or misbehave."""

from __future__ import annotations

import shlex
from pathlib import Path

from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.machine import MAC_TOOLS, mac
from daemon.thunderbolt.run import Output

RECORDED = Path(__file__).parent / "recorded"
HANG = "sleep 600 & echo $! >> {pids}; wait"
SEGV = "kill -SEGV $$"
ENDLESS = "exec yes rdma_en2"


def said(machine: str) -> dict[str, str]:
    """What each tool of a recorded machine says."""
    return {path.name: path.read_text("utf-8") for path in (RECORDED / machine).iterdir()}


def outputs(machine: str, **changes: str | Output) -> dict[str, Output]:
    """The same as outputs; `changes` by tool: other text, or another end. `ibv_devinfo` fails where
    there is no device.
    """
    found = {tool: Output("ok", text) for tool, text in said(machine).items()}
    for tool, text in said(machine).items():
        if text.startswith("No IB devices"):
            found[tool] = Output("failed", "", f"exit code 255, {text.strip()}")
    for tool, change in changes.items():
        found[tool] = change if isinstance(change, Output) else Output("ok", change)
    return found


def recorded(machine: str, **changes: str | Output) -> Machine:
    """A recorded Mac as it is read. `machine` names a folder; a change of "missing" or "hangs" is
    how the tool went.
    """
    ends = {t: Output(c) if c in ("missing", "hangs") else c for t, c in changes.items()}
    return mac(outputs(machine, **ends))


def write_tools(folder: Path, machine: str, **bodies: str) -> Path:
    """Scripts that say what was recorded; `bodies` by tool: what one does instead, in shell."""
    folder.mkdir(parents=True, exist_ok=True)
    for tool in MAC_TOOLS:
        source = RECORDED / machine / tool
        body = f"cat {shlex.quote(str(source))}" if source.exists() else "exit 1"
        if source.exists() and source.read_text("utf-8").startswith("No IB devices"):
            body += " >&2; exit 255"
        script = folder / tool
        script.write_text("#!/bin/sh\n" + bodies.get(tool, body) + "\n")
        script.chmod(0o755)
    return folder
