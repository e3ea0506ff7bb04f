"""rebalance: another layout while requests run."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl.errors import CommandError, ExitCode
from ctl.following import follow
from ctl.options import command
from ctl.placement import Context, Exclude, MaxMemory, Objective, Pin, Split, wishes
from ctl.render.rebalance import rebalance_text
from ctl.session import Session


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "rebalance")(rebalance)


def rebalance(
    session: Session,
    auto: Annotated[
        bool, typer.Option("--auto", help="The best layout for the objective, as measured now.")
    ] = False,
    split: Split = None,
    nodes: Annotated[
        str | None,
        typer.Option("--nodes", metavar="A,B,C", help="These only; with --split in this order."),
    ] = None,
    objective: Objective = None,
    context: Context = None,
    pin: Pin = None,
    max_memory: MaxMemory = None,
    exclude: Exclude = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Compute KV again that could be copied.")
    ] = False,
    abort: Annotated[
        bool, typer.Option("--abort", help="End the one that is under way: back to what was.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until it is done, or only until it has begun.")
    ] = True,
) -> None:
    """Move layers between nodes while requests run. Nobody loses a token."""
    said = (auto, split, nodes, objective, pin, max_memory, exclude)
    if abort:
        if any(said) or dry_run:
            why = "it ends what is under way, and begins nothing"
            raise CommandError(ExitCode.USAGE, "--abort with other options", why, "leave them out")
        with session.client() as client:
            data = client.request("rebalance.abort")
        session.show({**data, "aborted": True}, lambda style: "aborted: the layout is as it was")
        return
    if not any(said):
        why = "nothing says which layout it is to be"
        todo = "add --auto for the best one, or --split, --objective, --pin; see `rebalance --help`"
        raise CommandError(ExitCode.USAGE, "rebalance to what?", why, todo)
    if auto and split:
        why = "one asks for the best layout, the other for this one"
        raise CommandError(ExitCode.USAGE, "--auto with --split", why, "leave one of them out")
    arguments = {
        **wishes(objective, context, split, pin, max_memory, exclude),
        "nodes": [name for name in (nodes or "").split(",") if name],
        "dry_run": dry_run,
        "wait": wait,
        "replay": replay,
    }
    data = follow(session, "rebalance", arguments)
    session.show(data, lambda style: rebalance_text(data, style))
    if data.get("begun") and not wait:
        session.note(
            "it goes on: `shardctl status --watch` shows how far, `shardctl events` its end"
        )
