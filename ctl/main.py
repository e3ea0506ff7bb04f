"""`shardctl`: the commands, the global options, and how every run ends."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import TyperException

from ctl import output
from ctl.commands import (
    cluster,
    config,
    generate,
    kv,
    local,
    model,
    nodes,
    observe,
    plan,
    rdma,
    rebalance,
    requests,
)
from ctl.errors import CommandError, ExitCode, Interrupted
from ctl.options import ROOT, with_parameters
from ctl.signals import Signals

HELP = """Steer a Shardbus cluster: one large language model over several machines.

Data goes to stdout, everything else to stderr. Exit status: 0 ok, 1 failed, 2 usage, 3 degraded,
4 coordinator unreachable, 5 refused, 6 timeout, 130 interrupted.
"""
GROUPS = (
    local, cluster, nodes, plan, rebalance, rdma, kv, model, generate, requests, observe, config,
)  # fmt: skip


def build() -> typer.Typer:
    """The application with all commands."""
    app = typer.Typer(
        name="shardctl",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich would double the time of --help
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def root(ctx: typer.Context, **values: Any) -> None:
        ctx.obj = {**(ctx.obj or {}), **values}

    root.__doc__ = HELP
    version = inspect.Parameter(
        "version",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            typer.Option(
                "--version", callback=_version, is_eager=True, help="Print the version and exit."
            ),
        ],
    )
    with_parameters(root, [], [*ROOT, version])
    app.callback()(root)
    for group in GROUPS:
        group.register(app)
    return app


def run(arguments: Sequence[str], signals: Signals) -> int:
    """Run one command line; the exit status. Errors are reported here and nowhere else."""
    machine = wants_json(arguments)
    try:
        status = build()(
            args=with_watch_interval(arguments),
            prog_name="shardctl",
            standalone_mode=False,
            obj={"signals": signals},
        )
        if sys.stdout is not None:
            sys.stdout.flush()
        return status if isinstance(status, int) else ExitCode.OK
    except CommandError as error:
        return _report(error, machine)
    except TyperException as error:
        return _usage(error, machine)
    except typer.Abort:
        return 128 + 2
    except Interrupted as interrupted:
        return interrupted.code


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors must be JSON: looked up by hand, because the error may be that the command
    line cannot be parsed.
    """
    for index, word in enumerate(arguments):
        if word == "--":
            return False
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if word in ("--json", "--jsonl") or (
            word in ("-o", "--output") and following in ("json", "jsonl")
        ):
            return True
        if word in ("-ojson", "-ojsonl", "--output=json", "--output=jsonl"):
            return True
    return False


def with_watch_interval(arguments: Sequence[str]) -> list[str]:
    """`--watch` alone means `--watch=2s`; only the commands that have it are looked at."""
    words = list(arguments)
    if "status" not in words and "pipeline" not in words:
        return words
    return ["--watch=2s" if word in ("--watch", "-w") else word for word in words]


def _version(value: bool) -> None:
    if value:
        from importlib import metadata

        try:
            version = metadata.version("shardbus")
        except metadata.PackageNotFoundError:
            version = "unknown (not installed)"
        from daemon.messages import PROTOCOL

        typer.echo(f"shardctl {version} (protocol {PROTOCOL})")
        raise typer.Exit


def _report(error: CommandError, machine: bool) -> int:
    output.say(json.dumps(error.record(), ensure_ascii=False) if machine else error.line())
    return int(error.code)


def _usage(error: TyperException, machine: bool) -> int:
    """typer's own complaint in our one-line form; help that was asked for by saying nothing."""
    format_message = getattr(error, "format_message", None)
    text = str(format_message() if format_message is not None else error).strip()
    if text.startswith("Usage:"):
        output.say(text)
        return int(ExitCode.USAGE)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "shardctl"
    what = text[:1].lower() + text[1:].rstrip(".")
    return _report(CommandError(ExitCode.USAGE, what, todo=f"see `{path} --help`"), machine)


def main() -> None:
    """The console script."""
    signals = Signals()
    signals.install()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    status = _guarded(sys.argv[1:], signals)
    sys.exit(status)


def _guarded(arguments: Sequence[str], signals: Signals) -> int:
    try:
        return run(arguments, signals)
    except Interrupted as interrupted:  # while an error was being reported
        return interrupted.code


if __name__ == "__main__":
    main()
