"""rdma enable, disable, test: whether hops use RDMA, and what a pair of nodes makes of it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from ctl import report
from ctl.errors import CommandError, ExitCode
from ctl.mending import look, mend, tell, this_machine
from ctl.options import command
from ctl.render.rdma_switch import hops_text, pair_text
from ctl.session import Session

NodeA = Annotated[str | None, typer.Argument(metavar="A", help="A node's name.")]
NodeB = Annotated[str | None, typer.Argument(metavar="B", help="Another's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]


def add(group: typer.Typer) -> None:
    """Add the commands to the group `rdma`."""
    command(group, "enable")(enable)
    command(group, "disable")(disable)
    command(group, "test", no_args_is_help=True)(try_pair)


def enable(
    session: Session,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Mend this machine's ports, with sudo; all is printed first."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Use RDMA between stages wherever it works, now and after restarts. Exits with 3 when some
    hops stay on ZeroMQ.
    """
    warn(session)
    ports = followed(session, "rdma.ports", {})
    mending = look(ports, this_machine() if fix else None)
    tell(session, mending)
    if fix and not dry_run:
        mend(session, mending)
    data = followed(session, "rdma.enable", {"dry_run": dry_run}) | mending.record()
    session.show(data, lambda style: hops_text(data, style))
    slow = [hop for hop in data["hops"] if hop["path"] != "rdma"]
    if slow and not dry_run:
        raise CommandError(
            ExitCode.DEGRADED,
            f"{len(slow)} of {len(data['hops'])} hops stay on ZeroMQ",
            str(slow[0]["why"] or ""),
            "RDMA stays enabled and is used where it can be; see `shardctl rdma status`",
        )


def disable(session: Session, dry_run: DryRun = False) -> None:
    """Use ZeroMQ for all hops, at once. macOS's own switch for RDMA stays as it is."""
    with session.client() as client:
        data = client.request("rdma.disable", dry_run=dry_run)
    words = "would be" if dry_run else "is"
    text = f"RDMA {words} disabled" if data["changed"] else "RDMA was not enabled"
    session.show(data, lambda style: text)
    if data["changed"] and not dry_run:
        session.hint("`rdma_ctl disable` in Recovery switches RDMA off in macOS itself")


def try_pair(
    session: Session,
    a: NodeA = None,
    b: NodeB = None,
    file: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="What a cluster has, and how it went."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Try RDMA between two nodes: a checksum, the round trip, the bandwidth; within a minute. With
    --report alone nothing is tried, only looked at.
    """
    if b is None and (a is not None or file is None):
        what, todo = "test takes two nodes, or --report FILE, or both", "see `shardctl nodes`"
        raise CommandError(ExitCode.USAGE, what, todo=todo)
    data = None if b is None else _tried(session, str(a), b, dry_run)
    if file is not None:
        _write(session, file, [] if data is None else [data])
    if data is None:
        return
    session.show(data, lambda style: pair_text(data))
    if data["why"]:
        why = str(data["why"])
        raise CommandError(ExitCode.FAILED, f"no RDMA between {a} and {b}", why)


def _tried(session: Session, a: str, b: str, dry_run: bool) -> dict[str, Any]:
    warn(session)
    session.note("this may start a group of these two, and JACCL bears few starts between reboots")
    return followed(session, "rdma.test", {"a": a, "b": b, "dry_run": dry_run})


def _write(session: Session, file: Path, found: list[dict[str, Any]]) -> None:
    from daemon.thunderbolt.report import with_probes

    document = followed(session, "rdma.report", {})
    report.write(file, with_probes(document, found, secrets.token_hex(16)))
    session.note(f"written to {file}; look through it before you send it to anybody")


def warn(session: Session) -> None:
    from daemon.thunderbolt.recovery import SECURITY

    session.note(SECURITY)


def followed(session: Session, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The reply to what takes longer than a short request. Ctrl-C ends the waiting alone."""
    from daemon.messages import Chunk

    said: set[str] = set()
    with session.client() as client:
        for message in client.stream(verb, arguments):
            if not isinstance(message, Chunk):
                return message.data
            for hop in message.data.get("hops") or []:
                text = f"{hop['from']} to {hop['to']}: {hop['why'] or hop['path']}"
                if text not in said:
                    said.add(text)
                    session.hint(text)
    raise AssertionError("unreachable: a stream ends with its reply, or raises")
