"""rdma enable, disable, test: whether hops use RDMA, and what a pair of nodes makes of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ctl.errors import CommandError, ExitCode
from ctl.options import command
from ctl.render.rdma_switch import hops_text, pair_text
from ctl.session import Session

NodeA = Annotated[str, typer.Argument(metavar="A", help="A node's name.")]
NodeB = Annotated[str, typer.Argument(metavar="B", help="Another's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen.")]
WARNING = (
    "whoever shares a Thunderbolt cable has direct access to memory, and frames are not encrypted: "
    "cable only machines of your own"
)


def add(group: typer.Typer) -> None:
    """Add the commands to the group `rdma`."""
    command(group, "enable")(enable)
    command(group, "disable")(disable)
    command(group, "test", no_args_is_help=True)(try_pair)


def enable(session: Session, dry_run: DryRun = False) -> None:
    """Use RDMA between stages wherever it works, now and after restarts. Exits with 3 when some
    hops stay on ZeroMQ.
    """
    session.note(WARNING)
    data = followed(session, "rdma.enable", {"dry_run": dry_run})
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


def try_pair(session: Session, a: NodeA, b: NodeB, dry_run: DryRun = False) -> None:
    """Try RDMA between two nodes: a checksum, the round trip, the bandwidth; within a minute."""
    session.note(WARNING)
    session.note("this may start a group of these two, and JACCL bears few starts between reboots")
    data = followed(session, "rdma.test", {"a": a, "b": b, "dry_run": dry_run})
    session.show(data, lambda style: pair_text(data))
    if data["why"]:
        why = str(data["why"])
        raise CommandError(ExitCode.FAILED, f"no RDMA between {a} and {b}", why)


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
