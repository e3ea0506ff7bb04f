"""ps and cancel: the requests that run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ctl.errors import CommandError, ExitCode
from ctl.options import command
from ctl.render.lists import ps_text
from ctl.render.table import Style
from ctl.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "ps")(ps)
    command(app, "cancel", no_args_is_help=True)(cancel)


def ps(session: Session) -> None:
    """List the requests that run or wait."""
    with session.client() as client:
        data = client.request("ps")
    rows = data["sequences"]
    session.show_rows(data, rows, lambda style: ps_text(rows, style))


def cancel(
    session: Session,
    sequence: Annotated[
        str, typer.Argument(metavar="SEQUENCE", help="An id, the start of one, or `all`.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be cancelled.")
    ] = False,
) -> None:
    """Cancel a request."""
    with session.client() as client:
        if dry_run:
            running = [row["sequence"] for row in client.request("ps")["sequences"]]
            data: dict[str, Any] = {"cancelled": _matching(sequence, running), "dry_run": True}
        else:
            data = {**client.request("cancel", sequence=sequence), "dry_run": False}
    verb = "would cancel" if dry_run else "cancelled"

    def text(style: Style) -> str:
        return "\n".join(f"{verb} {name}" for name in data["cancelled"]) or "nothing to cancel"

    session.show(data, text)


def _matching(wanted: str, running: list[str]) -> list[str]:
    """The ids that the coordinator would cancel; by its rules."""
    if wanted == "all":
        return running
    found = [name for name in running if name.startswith(wanted.lower())]
    if len(found) != 1:
        why = "no request has that id" if not found else f"{len(found)} requests start like that"
        raise CommandError(
            ExitCode.FAILED if not found else ExitCode.USAGE,
            f"cannot cancel {wanted!r}",
            why,
            "see `shardctl ps -o wide`",
        )
    return found
