"""rdma: what may carry hidden states past the network."""

from __future__ import annotations

import typer

from ctl.commands import rdma_switch


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="RDMA over Thunderbolt.", no_args_is_help=True, rich_markup_mode=None)
    rdma_switch.add(group)
    app.add_typer(group, name="rdma")
