"""What an operator can mend of the Thunderbolt ports: said, and done where shardctl runs.

Commands are made here, of the nodes' facts: none that came over a socket is run. Those that are run
here are of what this machine says of itself, so that no node can name what they change.
"""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ctl.errors import CommandError, ExitCode
from ctl.render.table import clean
from ctl.session import Session

if TYPE_CHECKING:
    from daemon.thunderbolt.facts import Machine
    from daemon.thunderbolt.fixes import Fix


@dataclass(frozen=True, slots=True)
class Mending:
    """`here` are the nodes of this machine, `recovery` those that somebody has to go to."""

    fixes: list[Fix]
    here: frozenset[str]
    recovery: list[str]

    def record(self) -> dict[str, Any]:
        return {"fixes": [asdict(fix) for fix in self.fixes], "recovery": self.recovery}


def this_machine() -> Machine:
    """As its own tools see it now."""
    import asyncio

    from daemon.thunderbolt.look import Looker

    return asyncio.run(Looker().look(0.0)).machine


def look(data: dict[str, Any], local: Machine | None) -> Mending:
    """From the reply to rdma.ports. With `local`, the machine that commands may be run on, its own
    facts take the place of what is told of it; it is the node of the same boot, whatever the names.
    """
    from daemon.thunderbolt import recovery
    from daemon.thunderbolt.facts import FactsError, Machine
    from daemon.thunderbolt.fixes import fixes

    machines = {}
    for node, facts in data["machines"].items():
        try:
            machines[node] = Machine.from_wire(facts)
        except FactsError as error:
            raise CommandError(
                ExitCode.REFUSED, f"facts of {node} cannot be read: {error}"
            ) from error
    here: frozenset[str] = frozenset()
    if local is not None and local.boot:
        here = frozenset(node for node, one in machines.items() if one.boot == local.boot)
        machines.update(dict.fromkeys(here, local))
    return Mending(fixes(machines), here, recovery.nodes(machines))


def tell(session: Session, mending: Mending) -> None:
    """All commands, the way back, and the steps in Recovery, for people."""
    from daemon.thunderbolt import recovery
    from daemon.thunderbolt.fixes import text

    for fix in mending.fixes:
        session.note(f"{clean(fix.node)}: {clean(fix.why)}")
        for command in fix.commands:
            session.note(f"    {clean(text(command))}")
        for command in fix.undo:
            session.note(f"    to undo it: {clean(text(command))}")
    for line in recovery.steps(mending.recovery):
        session.note(clean(line))


def mend(session: Session, mending: Mending) -> None:
    """Run the commands for this machine, with sudo, which asks for the password at the terminal.
    Those for others are for their own terminals.
    """
    from daemon.thunderbolt.fixes import text

    for fix in mending.fixes:
        for command in fix.commands if fix.node in mending.here else ():
            session.note(f"+ {clean(text(command))}")
            try:
                done = subprocess.run(command, stdout=2, check=False)
            except OSError as error:
                raise _failed(text(command), error.strerror or str(error)) from error
            if done.returncode:
                raise _failed(text(command), f"exit code {done.returncode}")
    others = sorted({fix.node for fix in mending.fixes} - mending.here)
    if others:
        session.note(
            f"on {clean(', '.join(others))} run `shardctl rdma enable --fix` there, or these"
        )


def _failed(command: str, why: str) -> CommandError:
    todo = "the commands before it were run; those to undo them stand above"
    return CommandError(ExitCode.FAILED, f"`{command}` failed", why, todo)
