"""plan: which nodes should hold which layers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ctl.commands.model import model_reference
from ctl.options import command
from ctl.placement import Context, Exclude, MaxMemory, Objective, Pin, Split, wishes
from ctl.render.plan import plan_text
from ctl.session import Session


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "plan")(plan)


def plan(
    session: Session,
    model: Annotated[
        str | None, typer.Argument(help="A name from `model list`, or a folder. [default: loaded]")
    ] = None,
    objective: Objective = None,
    context: Context = None,
    split: Split = None,
    pin: Pin = None,
    max_memory: MaxMemory = None,
    exclude: Exclude = None,
) -> None:
    """Show the best placement of the layers, and what it promises; changes nothing."""
    from daemon.messages import Chunk

    arguments = {
        "model": model and model_reference(model),
        **wishes(objective, context, split, pin, max_memory, exclude),
    }
    data: dict[str, Any] = {}
    with session.client() as client:
        for message in client.stream("plan", arguments):
            if isinstance(message, Chunk):
                nodes = ", ".join(message.data.get("measuring") or ())
                session.note(f"measuring {nodes}: some seconds, once")
            else:
                data = message.data
    session.show(data, lambda style: plan_text(data, style))
