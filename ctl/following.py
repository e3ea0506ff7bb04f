"""A change of layout, followed to its end."""

from __future__ import annotations

from typing import Any

from ctl import output
from ctl.errors import Interrupted
from ctl.output import Format
from ctl.progress import LiveLine, move_line
from ctl.render import records
from ctl.session import Session

GOES_ON = (
    "the layers go on moving: see `shardctl status`; `shardctl rebalance --abort` ends it, and the "
    "layout is as it was"
)


def follow(session: Session, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Ask for it and show how far it is; the reply. Ctrl-C ends the waiting, not the change: it is
    the cluster's, and others may rely on it.
    """
    from daemon.messages import Chunk

    line = LiveLine(not session.quiet and not session.output.machine)
    moving = False
    with session.client() as client:
        try:
            for message in client.stream(verb, arguments):
                if not isinstance(message, Chunk):
                    return message.data
                if progress := message.data.get("moving"):
                    moving = True
                    line.draw(move_line(progress))
                if measuring := message.data.get("measuring"):
                    session.note(f"measuring {', '.join(measuring)}: some seconds, once")
                elif session.output is Format.JSONL:
                    session.print(records.line({"type": "progress", **message.data}))
        except Interrupted:
            line.close()
            if moving:
                output.say(GOES_ON)
            raise
        finally:
            line.close()
    return {}
