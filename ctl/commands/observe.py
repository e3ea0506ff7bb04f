"""events and logs: what happened."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ctl import output
from ctl.options import command
from ctl.output import Format
from ctl.render import records
from ctl.render.lists import event_text, log_text
from ctl.session import Session


class Child(StrEnum):
    """The processes of a node."""

    SHARDD = "shardd"
    STAGE = "stage"
    DRAFT = "draft"
    COORDINATOR = "coordinator"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "events")(events)
    command(app, "logs", no_args_is_help=True)(logs)


def events(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many old ones.")] = 100,
) -> None:
    """Show what happened in the cluster, oldest first."""
    from daemon.messages import Chunk

    style = session.style()
    collected = []
    sink = output.Sink()
    arguments = {"follow": follow, "limit": limit}
    with session.client() as client:
        for message in client.stream("events", arguments, sink):
            if not isinstance(message, Chunk):
                break
            if session.output is Format.JSON and not follow:
                collected.append(message.data)
            elif session.output.machine:  # an endless list has no closing bracket
                sink.write(records.line(message.data) + "\n")
            else:
                sink.write(event_text(message.data, style) + "\n")
    if session.output is Format.JSON and not follow:
        sink.write(records.document({"events": collected}) + "\n")
    sink.close()


def logs(
    session: Session,
    node: Annotated[str, typer.Argument(help="A node's name.")],
    child: Annotated[Child, typer.Option("--child", "-c", help="Whose log.")] = Child.SHARDD,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=2000)] = 100,
) -> None:
    """Show the last lines of a node's log."""
    with session.client() as client:
        data = client.request("logs", node=node, child=child.value, lines=lines)
    rows = [{"node": data["node"], "line": line} for line in data["lines"]]
    if session.output.machine or rows:
        session.show_rows(data, rows, lambda style: log_text(data["lines"]))
