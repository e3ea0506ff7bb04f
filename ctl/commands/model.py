"""model list, load, unload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ctl.errors import CommandError, ExitCode
from ctl.options import command
from ctl.output import Format
from ctl.progress import LoadProgress
from ctl.render import records
from ctl.render.lists import models_text
from ctl.session import Session

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="List, load, unload.", no_args_is_help=True, rich_markup_mode=None)
    command(group, "list")(list_models)
    command(group, "load", no_args_is_help=True)(load)
    command(group, "unload")(unload)
    app.add_typer(group, name="model")


def list_models(session: Session) -> None:
    """List the models that the cluster knows."""
    with session.client() as client:
        data = client.request("model.list")
    rows = data["models"]
    session.show_rows(data, rows, lambda style: models_text(rows, style))


def load(
    session: Session,
    model: Annotated[str, typer.Argument(help="A name from `model list`, or a folder.")],
    split: Annotated[
        str | None, typer.Option("--split", metavar="5,2,1", help="Layers per stage.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Load a model over the nodes; shows progress."""
    from ctl.local import parse_split
    from daemon.messages import Chunk

    model = model_reference(model)
    parts = None if split is None else list(parse_split(split))
    data: dict[str, Any] = {}
    with session.client() as client:
        if dry_run:
            known = client.request("model.list")["models"]
            planned = _planned(model, parts, known)
            session.show(planned, lambda style: f"would load {_described(planned)}")
            return
        progress = LoadProgress(not session.quiet and not session.output.machine)
        try:
            for message in client.stream("model.load", {"model": model, "split": parts}):
                if not isinstance(message, Chunk):
                    data = message.data
                elif session.output is Format.JSONL:
                    session.print(records.line({"type": "progress", **message.data}))
                else:
                    chunk = message.data
                    progress.update(chunk["node"], chunk["bytes_loaded"], chunk["bytes_total"])
        finally:
            progress.close()
    session.show({**data, "dry_run": False}, lambda style: f"loaded {_described(data)}")


def model_reference(text: str) -> str:
    """A name as it is, a folder from the root on: the coordinator has another working directory."""
    return str(Path(text).resolve()) if "/" in text and Path(text).is_dir() else text


def unload(session: Session, dry_run: DryRun = False) -> None:
    """Unload the model."""
    with session.client() as client:
        if dry_run:
            status = client.request("status")
            model = (status.get("model") or {}).get("name")
            data = {"model": model, "active": status.get("active"), "dry_run": True}
            session.show(data, lambda style: _unloaded("would unload", model))
            return
        data = {**client.request("model.unload"), "dry_run": False}
    session.show(data, lambda style: _unloaded("unloaded", data["model"]))


def _unloaded(verb: str, model: object) -> str:
    return f"{verb} {model}" if model else "no model is loaded"


def _described(data: dict[str, Any]) -> str:
    layers = data.get("layers")
    text = str(data.get("model"))
    return f"{text}, layers {','.join(map(str, layers))}" if layers else text


def _planned(wanted: str, split: list[int] | None, known: list[dict[str, Any]]) -> dict[str, Any]:
    """What loading would do, as far as the coordinator's list tells; a folder may be unlisted."""
    found = next((m for m in known if wanted in (m.get("name"), m.get("folder"))), None)
    if found is None and "/" not in wanted:
        names = ", ".join(sorted(str(m.get("name")) for m in known)) or "none"
        raise CommandError(
            ExitCode.USAGE,
            f"unknown model {wanted!r}",
            f"the cluster knows {names}",
            "give one of these, or a folder",
        )
    layers = None if found is None else found.get("layers")
    if split is not None and layers is not None and sum(split) != layers:
        raise CommandError(
            ExitCode.USAGE,
            f"wrong split {','.join(map(str, split))}",
            f"its sum is {sum(split)}, and {wanted} has {layers} layers",
            "make them equal",
        )
    return {"model": wanted, "layers": split, "dry_run": True}
