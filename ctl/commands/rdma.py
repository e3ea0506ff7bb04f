"""rdma: what may carry hidden states past the network, and why it does not."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl.commands import rdma_switch
from ctl.commands.rdma_switch import followed
from ctl.options import command
from ctl.render.rdma import port_rows, status_text
from ctl.session import Session


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="RDMA over Thunderbolt: what each port can, and what it lacks.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    command(group, "status")(status)
    rdma_switch.add(group)
    app.add_typer(group, name="rdma")


def status(
    session: Session,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="This one only.")
    ] = None,
) -> None:
    """Show the Thunderbolt ports of all nodes: verdict, reason, what to do. Changes nothing."""
    data = followed(session, "rdma.status", {"node": node} if node else {})
    session.show_rows(data, port_rows(data), lambda style: status_text(data, style))
