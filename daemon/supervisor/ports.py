"""What the coordinator asks of this machine's Thunderbolt ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from daemon import logs
from daemon import messages as msg
from daemon.thunderbolt import report
from daemon.thunderbolt.look import RECENT_SECONDS, Looker

MOST_ASKED = 8  # questions that may wait for the tools at once
log = logs.get("ports")


class Ports:
    """shardd goes on while the tools run; `say` is given the answer."""

    def __init__(self, node: str, say: Callable[[msg.Message], bool]) -> None:
        self.looker = Looker()
        self._node = node
        self._say = say
        self._asked: set[asyncio.Task[None]] = set()

    def ask(self, query: msg.PortsQuery) -> None:
        if len(self._asked) >= MOST_ASKED:
            log.warning("asked for the ports too often at once: not answered")
            return
        task = asyncio.create_task(self._answer(query))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def close(self) -> None:
        """End what runs; nobody waits for it any more."""
        await self.looker.close()
        await asyncio.gather(*self._asked, return_exceptions=True)

    async def _answer(self, query: msg.PortsQuery) -> None:
        look = await self.looker.look(0.0 if query.fresh else RECENT_SECONDS)
        outputs = report.outputs(look.outputs, query.salt) if query.salt else {}
        facts = look.machine.to_wire()
        if not self._say(msg.PortsReport(query.query, self._node, facts, outputs)):
            log.warning("the coordinator could not be told of the ports")
