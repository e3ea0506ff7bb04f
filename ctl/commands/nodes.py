"""nodes: which there are, and which are to have layers."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl.following import follow
from ctl.options import command, default_command
from ctl.render.rebalance import rebalance_text
from ctl.render.status import nodes_text
from ctl.render.table import clean
from ctl.session import Session

Name = Annotated[str, typer.Argument(metavar="NODE", help="A node's name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="List the nodes; drain, undrain one.", rich_markup_mode=None)
    default_command(group, nodes)
    command(group, "drain", no_args_is_help=True)(drain)
    command(group, "undrain", no_args_is_help=True)(undrain)
    app.add_typer(group, name="nodes")


def nodes(session: Session) -> None:
    """List the nodes; drain, undrain one."""
    with session.client() as client:
        data = client.request("nodes")
    rows = data["nodes"]
    session.show_rows(data, rows, lambda style: nodes_text(rows, style))


def drain(
    session: Session,
    node: Name,
    dry_run: DryRun = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until it is done, or only until it has begun.")
    ] = True,
) -> None:
    """Move a node's layers to the others while requests run; it gets none until `undrain`."""
    arguments = {"node": node, "dry_run": dry_run, "wait": wait}
    data = follow(session, "nodes.drain", arguments)
    if data.get("nodes"):
        session.show(data, lambda style: rebalance_text(data, style))
    else:
        words = "would be drained" if dry_run else "is drained"
        words = words if data.get("changed") else "was drained already"
        session.show(data, lambda style: f"{clean(node)} {words}: it has no layers")
    if data.get("begun") and not wait:
        session.note(
            "it goes on: `shardctl status --watch` shows how far, `shardctl events` its end"
        )


def undrain(session: Session, node: Name, dry_run: DryRun = False) -> None:
    """Let a node have layers again."""
    with session.client() as client:
        data = client.request("nodes.undrain", node=node, dry_run=dry_run)
    words = "would be let have" if dry_run else "may have"
    words = f"{words} layers again" if data.get("changed") else "was not drained"
    session.show(data, lambda style: f"{clean(node)} {words}")
    if data.get("changed") and not dry_run:
        session.hint("`shardctl rebalance --auto` gives it some, where that is better")
