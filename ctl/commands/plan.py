"""plan: which nodes should hold which layers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ctl.commands.model import model_reference
from ctl.errors import CommandError, ExitCode
from ctl.options import command
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
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="latency|throughput|balanced",
            help="One stream soonest, most tokens of many, or nearly both.",
        ),
    ] = "balanced",
    context: Annotated[
        int | None,
        typer.Option("--context", min=1, help="Tokens of KV to have room for. [default: the most]"),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="5,2,1", help="Exactly so many per node.")
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", metavar="NODE=0-11", help="Exactly these layers on a node."),
    ] = None,
    max_memory: Annotated[
        list[str] | None,
        typer.Option("--max-memory", metavar="NODE=48GB", help="For weights and KV of a node."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="NODE", help="Not this node.")
    ] = None,
) -> None:
    """Show the best placement of the layers, and what it promises; changes nothing."""
    from ctl.local import parse_split
    from daemon.messages import Chunk

    arguments = {
        "model": model and model_reference(model),
        "objective": objective,
        "context": context,
        "split": None if split is None else list(parse_split(split)),
        "pins": {name: _layers(text) for name, text in _pairs(pin, "--pin", "NODE=0-11")},
        "memory": {
            name: _bytes(text) for name, text in _pairs(max_memory, "--max-memory", "NODE=48GB")
        },
        "exclude": list(exclude or ()),
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


def _pairs(values: list[str] | None, option: str, form: str) -> list[tuple[str, str]]:
    found = []
    for value in values or ():
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            raise _wrong(option, value, f"it must be {form}")
        found.append((name, text))
    return found


def _layers(text: str) -> list[int]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit()) or int(last or first) < int(first):
        raise _wrong("--pin", text, "layers are a number, or two with a dash: 0-11")
    return [int(first), int(last or first) + 1]


def _bytes(text: str) -> int:
    from daemon.config.errors import ConfigError
    from daemon.config.parse import size
    from daemon.config.values import TextValue

    try:
        return size(TextValue("--max-memory", "--max-memory", text))
    except ConfigError as error:
        raise _wrong("--max-memory", text, error.why) from error


def _wrong(option: str, value: str, why: str) -> CommandError:
    return CommandError(ExitCode.USAGE, f"wrong {option} {value!r}", why, "see `plan --help`")
