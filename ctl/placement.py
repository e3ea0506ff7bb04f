"""How an operator writes down where layers are to go: for `plan` and `rebalance`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ctl.errors import CommandError, ExitCode

OBJECTIVES = "latency|throughput|balanced"
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar=OBJECTIVES,
        help="One stream soonest, most tokens of many, or nearly both. [default: balanced]",
    ),
]
Context = Annotated[
    int | None,
    typer.Option("--context", min=1, help="Tokens of KV to have room for. [default: the most]"),
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="5,2,1", help="Exactly so many per node.")
]
Pin = Annotated[
    list[str] | None,
    typer.Option("--pin", metavar="NODE=0-11", help="Exactly these layers on a node."),
]
MaxMemory = Annotated[
    list[str] | None,
    typer.Option("--max-memory", metavar="NODE=48GB", help="For weights and KV of a node."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="NODE", help="Not this node.")
]


def wishes(
    objective: str | None,
    context: int | None,
    split: str | None,
    pin: list[str] | None,
    max_memory: list[str] | None,
    exclude: list[str] | None,
) -> dict[str, Any]:
    """As the coordinator's verbs take them."""
    from ctl.local import parse_split

    return {
        "objective": objective or "balanced",
        "context": context,
        "split": None if split is None else list(parse_split(split)),
        "pins": {name: _layers(text) for name, text in _pairs(pin, "--pin", "NODE=0-11")},
        "memory": {
            name: _bytes(text) for name, text in _pairs(max_memory, "--max-memory", "NODE=48GB")
        },
        "exclude": list(exclude or ()),
    }


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
