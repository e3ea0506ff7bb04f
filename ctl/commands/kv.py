"""kv: the KV caches and the conversations they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ctl.errors import CommandError, ExitCode
from ctl.options import command, default_command
from ctl.render.kv import kv_text, list_text, show_text
from ctl.render.lists import short_id
from ctl.render.table import clean
from ctl.render.units import number, size
from ctl.session import Session
from ctl.target import Row, Target, ambiguous, id_of, target, unheld

if TYPE_CHECKING:
    from ctl.client import Client

WHAT = "An id, the start of one, or a conversation."
What = Annotated[str, typer.Argument(metavar="SEQUENCE|NAME", help=WHAT)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Show the KV caches; list, pin, save, load and evict them.", rich_markup_mode=None
    )
    default_command(group, overview)
    command(group, "list")(list_entries)
    command(group, "show", no_args_is_help=True)(show)
    command(group, "pin", no_args_is_help=True)(pin)
    command(group, "unpin", no_args_is_help=True)(unpin)
    command(group, "evict", no_args_is_help=True)(evict)
    command(group, "save", no_args_is_help=True)(save)
    command(group, "load", no_args_is_help=True)(load)
    app.add_typer(group, name="kv")


def overview(session: Session) -> None:
    """Show the KV caches per node, stage and sequence, budgets and hit rates."""
    with session.client() as client:
        data = client.request("kv")
    session.show_rows(data, data["sequences"], lambda style: kv_text(data, style))
    _note_silent(session, data)


def list_entries(session: Session) -> None:
    """List what can be used again, and the conversations."""
    with session.client() as client:
        known = client.request("kv")
        conversations = client.request("conversation.list")["conversations"]
    entries = known.get("entries") or []
    rows = [{"type": "entry", **row} for row in entries]
    rows += [{"type": "conversation", **row} for row in conversations]
    data = {"entries": entries, "conversations": conversations}
    session.show_rows(data, rows, lambda style: list_text(entries, conversations, style))
    _note_silent(session, known)


def show(session: Session, what: What) -> None:
    """Show one sequence or conversation: what each stage holds of it."""
    with session.client() as client:
        wanted = target(client, what)
        known = client.request("kv")
    rows = wanted.of(known["sequences"])
    entries = wanted.of(known.get("entries") or [])
    ids = {id_of(row) for row in (*rows, *entries)}
    if len(ids) > 1:
        raise ambiguous(what, len(ids))
    if not ids and wanted.conversation is None:
        raise unheld(what)
    data = {
        "sequence": next(iter(ids), wanted.sequence),
        "conversation": wanted.conversation,
        "entry": entries[0] if entries else None,
        "sequences": rows,
    }
    session.show(data, lambda style: show_text(data, style))
    _note_silent(session, known)


def pin(session: Session, what: What, dry_run: DryRun = False) -> None:
    """Keep it when memory is short."""
    _pin(session, what, True, dry_run)


def unpin(session: Session, what: What, dry_run: DryRun = False) -> None:
    """Let it go when memory is short."""
    _pin(session, what, False, dry_run)


def _pin(session: Session, what: str, pinned: bool, dry_run: bool) -> None:
    with session.client() as client:
        wanted = target(client, what)
        if dry_run:
            data = {"sequence": wanted.held(client)["sequence"], "pinned": pinned}
        else:
            data = client.request("kv.pin", pinned=pinned, **wanted.argument())
    verb = ("would " if dry_run else "") + ("pin" if pinned else "unpin")
    verb += "" if dry_run else "ned"
    data = {**data, "dry_run": dry_run}
    session.show(data, lambda style: f"{verb} {short_id(data.get('sequence'))}")


def evict(
    session: Session,
    what: Annotated[
        str | None, typer.Argument(metavar="[SEQUENCE|NAME]", help=WHAT, show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that no request uses.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the conversation too, not only its KV.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Free the memory that it takes; it is computed again when it is needed."""
    if (what is None) != everything:
        why = "both or neither was given"
        todo = "name one thing, or give --all"
        raise CommandError(ExitCode.USAGE, "SEQUENCE|NAME and --all", why, todo)
    with session.client() as client:
        wanted = None if what is None else target(client, what)
        if forget and (wanted is None or wanted.conversation is None):
            why = "only a conversation can be forgotten"
            raise CommandError(ExitCode.USAGE, "--forget", why, "give a conversation's name")
        data: Row = {"evicted": _evicted(client, wanted, forget, dry_run)}
        if forget:
            data["forgotten"] = what
            if not dry_run:
                client.request("conversation.forget", conversation=what)
    data["dry_run"] = dry_run
    would = "would " if dry_run else ""
    lines = [f"{would}{'evict' if dry_run else 'evicted'} {short_id(i)}" for i in data["evicted"]]
    if forget:
        lines.append(f"{would}{'forget' if dry_run else 'forgot'} {clean(what)}")
    session.show(data, lambda style: "\n".join(lines) or "nothing to evict")


def _evicted(client: Client, wanted: Target | None, forget: bool, dry_run: bool) -> list[str]:
    """What goes, or would go. A conversation that is to be forgotten need not be held."""
    if dry_run or forget:
        entries = client.request("kv").get("entries") or []
        if wanted is None:
            free = [row for row in entries if row.get("state") == "kept"]
            return [row["sequence"] for row in free if not row.get("pinned")]
        if forget and not wanted.of(entries):
            return []
        if dry_run:
            return [wanted.one_of(entries)["sequence"]]
    argument = {"sequence": "all"} if wanted is None else wanted.argument()
    evicted: list[str] = client.request("kv.evict", **argument)["evicted"]
    return evicted


def save(session: Session, what: What, dry_run: DryRun = False) -> None:
    """Write it to the nodes' disks, from where it comes back after a restart."""
    with session.client() as client:
        wanted = target(client, what)
        ask = client.request
        data = wanted.held(client) if dry_run else ask("kv.save", **wanted.argument())
    _moved(session, data, "would save" if dry_run else "saved", dry_run)


def load(
    session: Session,
    what: Annotated[
        str, typer.Argument(metavar="NAME|ID", help="A conversation, or the start of an id.")
    ],
    dry_run: DryRun = False,
) -> None:
    """Read what was saved into memory."""
    with session.client() as client:
        # Which entry that is only the coordinator knows: it goes by the conversation's tokens.
        wanted = target(client, what).argument("entry")
        data = client.request("kv.load", dry_run=dry_run, **wanted)
    _moved(session, data, "would load" if dry_run else "loaded", dry_run)


def _moved(session: Session, data: Row, verb: str, dry_run: bool) -> None:
    shown = {key: data.get(key) for key in ("sequence", "entry", "tokens", "bytes", "seconds")}
    text = (
        f"{verb} {short_id(shown['sequence'] or shown['entry'])}, {number(shown['tokens'])} tokens"
    )
    if not dry_run:
        seconds = shown["seconds"]
        text += f", {size(shown['bytes'])}"
        text += "" if seconds is None else f" in {seconds:.2f} s"
    session.show({**shown, "dry_run": dry_run}, lambda style: text)


def _note_silent(session: Session, data: Row) -> None:
    if silent := data.get("silent"):
        session.note(f"no answer from {', '.join(silent)}")
