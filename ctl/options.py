"""The options that every command takes, before its name or after it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ctl.errors import CommandError, ExitCode
from ctl.output import Format, forget_stdout
from ctl.session import Session
from ctl.signals import Signals

DEFAULT_TIMEOUT = "5s"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
EPILOG = "The options of `shardctl --help` may follow the command as well."


def seconds(text: str, option: str) -> float:
    """`5`, `5s`, `500ms` or `2m` in seconds; more than zero."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)(ms|s|m)?", text)
    value = float(match[1]) * UNITS[match[2] or "s"] if match else 0.0
    if not 0.001 <= value <= 1e6:
        raise CommandError(
            ExitCode.USAGE, f"{option} is {text!r}", "it must be a time", "write for example 5s"
        )
    return value


def _parameters(hidden: bool) -> list[inspect.Parameter]:
    declared: list[tuple[str, Any, Any]] = [
        ("output", Format, typer.Option("--output", "-o", help="How data is printed.")),
        ("json", bool, typer.Option("--json", help="The same as -o json.", hidden=hidden)),
        (
            "endpoint",
            str,
            typer.Option(
                "--endpoint",
                metavar="ADDRESS",
                help="The coordinator, tcp://HOST:PORT. [env: SHARDBUS_ENDPOINT]",
                hidden=hidden,
            ),
        ),
        (
            "timeout",
            str,
            typer.Option(
                "--timeout",
                metavar="TIME",
                help=f"How long to wait for an answer. [default: {DEFAULT_TIMEOUT}]",
                hidden=hidden,
            ),
        ),
        ("quiet", bool, typer.Option("--quiet", "-q", help="Data and errors only.", hidden=hidden)),
        ("verbose", bool, typer.Option("--verbose", "-v", help="Say more.", hidden=hidden)),
        ("no_color", bool, typer.Option("--no-color", help="No colours.", hidden=hidden)),
    ]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if kind is not bool else False,
            annotation=Annotated[kind | None if kind is not bool else bool, option],
        )
        for name, kind, option in declared
    ]


ROOT = _parameters(hidden=False)
FOLLOWING = _parameters(hidden=True)
NAMES = tuple(parameter.name for parameter in ROOT)
_CONTEXT = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def with_parameters(
    wrapper: Callable[..., None], own: list[inspect.Parameter], common: list[inspect.Parameter]
) -> None:
    """Make typer see these parameters in place of `wrapper`'s own."""
    wrapper.__signature__ = inspect.Signature([_CONTEXT, *own, *common])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {}


def command(
    app: typer.Typer, name: str, *, aliases: tuple[str, ...] = (), no_args_is_help: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function that takes a Session first, then its own options."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        def wrapper(ctx: typer.Context, **values: Any) -> None:
            given = {key: values.pop(key) for key in NAMES}
            try:
                function(make_session(ctx.find_root().obj, given), **values)
            except BrokenPipeError as error:  # `| head`: whoever reads has had enough
                forget_stdout()
                raise typer.Exit(ExitCode.OK) from error

        wrapper.__name__ = function.__name__
        wrapper.__doc__ = function.__doc__
        signature = inspect.signature(function, eval_str=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(signature.parameters.values())[1:]
        ]
        with_parameters(wrapper, own, FOLLOWING)
        for title in (name, *aliases):
            app.command(
                title, epilog=EPILOG, hidden=title != name, no_args_is_help=no_args_is_help
            )(wrapper)
        return function

    return register


def default_command(group: typer.Typer, function: Callable[[Session], None]) -> None:
    """What the group does when none of its commands is named."""

    def wrapper(ctx: typer.Context, **given: Any) -> None:
        before = ctx.find_root().obj
        if ctx.invoked_subcommand is None:
            function(make_session(before, given))
        else:  # the command reads them as if they stood before the group
            before.update({name: value for name, value in given.items() if value})

    wrapper.__doc__ = function.__doc__
    with_parameters(wrapper, [], FOLLOWING)
    group.callback(invoke_without_command=True, epilog=EPILOG)(wrapper)


def make_session(before: dict[str, Any], after: dict[str, Any]) -> Session:
    """The global options; what was written after the command's name wins."""
    merged = {name: after[name] or before.get(name) for name in NAMES}
    output = Format.JSON if merged["json"] else merged["output"] or Format.TABLE
    signals = before.get("signals")
    return Session(
        output=output,
        endpoint_flag=merged["endpoint"],
        timeout=seconds(merged["timeout"] or DEFAULT_TIMEOUT, "--timeout"),
        quiet=bool(merged["quiet"]),
        verbose=bool(merged["verbose"]),
        no_color=bool(merged["no_color"]),
        signals=signals if isinstance(signals, Signals) else Signals(),
    )
