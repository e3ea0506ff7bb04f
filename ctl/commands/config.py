"""config check and show: the configuration of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctl.endpoint import load_config
from ctl.options import command
from ctl.render.table import Column, Style, clean, table
from ctl.session import Session

if TYPE_CHECKING:
    from daemon.config import Config

File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="Instead of the file that shardd would read."),
]
COLUMNS = (
    Column("SETTING", lambda row: clean(row["setting"])),
    Column("VALUE", lambda row: clean(row["value"])),
    Column("ORIGIN", lambda row: clean(row["origin"]), keep=1),
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Check or show the configuration.", no_args_is_help=True, rich_markup_mode=None
    )
    command(group, "check")(check)
    command(group, "show")(show)
    app.add_typer(group, name="config")


def check(session: Session, file: File = None) -> None:
    """Check a configuration file; exit with 1 and FILE:LINE when it is wrong."""
    config = load_config(None if file is None else str(file))
    path = None if config.file is None else str(config.file)
    data = {"valid": True, "file": path}
    where = path or "no file, the defaults"
    session.show(data, lambda style: f"valid: {where}")


def show(session: Session, file: File = None) -> None:
    """Show every setting, its value, and where that comes from."""
    config = load_config(None if file is None else str(file))
    path = None if config.file is None else str(config.file)
    data = {"file": path, "settings": config.to_mapping(), "origins": dict(config.origins)}
    rows = _rows(config)

    def text(style: Style) -> str:
        return table(COLUMNS, rows, style)

    session.show_rows(data, rows, text)


def _rows(config: Config) -> list[dict[str, object]]:
    from daemon.config import SETTINGS

    mapping = config.to_mapping()
    rows: list[dict[str, object]] = []
    for known in SETTINGS:
        value = mapping[known.section][known.name] if known.section else mapping[known.name]
        rows.append({"setting": known.path, "value": value, "origin": config.origin(known.path)})
    return rows
