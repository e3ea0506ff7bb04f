"""status and pipeline: what the cluster is and does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ctl import output
from ctl.errors import CommandError, ExitCode
from ctl.options import command, seconds
from ctl.render.pipeline import pipeline_text
from ctl.render.status import status_text
from ctl.session import Session

Watch = Annotated[
    str | None,
    typer.Option("--watch", "-w", metavar="[=TIME]", help="Again and again; every 2s by default."),
]
CLEAR = "\x1b[H\x1b[2J"
HEALTHY = ("ready", "idle", "loading")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "status")(status)
    command(app, "pipeline")(pipeline)


def status(
    session: Session,
    watch: Watch = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 3 unless the cluster is healthy.")
    ] = False,
) -> None:
    """Show the cluster: model, nodes, layers, hops, warnings."""

    def once() -> None:
        with session.client() as client:
            data = client.request("status")
        if not (check and session.quiet):
            session.show(data, lambda style: status_text(data, style))
        if check and watch is None and data.get("state") not in HEALTHY:
            raise CommandError(
                ExitCode.DEGRADED,
                f"the cluster is {data.get('state')}",
                data.get("reason") or "",
                "see `shardctl events`",
            )

    _repeat(session, watch, once)


def pipeline(session: Session, watch: Watch = None) -> None:
    """Show where the time goes, per stage and hop: queue, compute, link, busy share, bubble."""

    def once() -> None:
        with session.client() as client:
            data = client.request("pipeline")
        session.show(data, lambda style: pipeline_text(data, style))

    _repeat(session, watch, once)


def _repeat(session: Session, watch: str | None, once: Callable[[], Any]) -> None:
    """Once, or until interrupted. A watched coordinator may go away and come back."""
    if watch is None:
        once()
        return
    interval = seconds(watch, "--watch")
    terminal = sys.stdout.isatty() and not session.output.machine
    while True:
        if terminal:
            sys.stdout.write(CLEAR)
        try:
            once()
        except CommandError as error:
            if error.code not in (ExitCode.UNREACHABLE, ExitCode.TIMEOUT):
                raise
            output.say(error.line())
        time.sleep(interval)
