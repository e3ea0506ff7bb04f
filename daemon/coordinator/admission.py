"""Who may take part: nodes and stages of the same version, with the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

from daemon import messages as msg
from daemon.cluster.member import Member
from daemon.version import VERSION


class Rivals:
    """Two shardds of one name: the second waits, because the first may just have died, and is
    refused when the first turns out to be alive.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[str, float] = {}

    def must_wait(self, hello: msg.NodeHello, known: Member | None, now: float) -> bool:
        """Whether another process of this name was heard of in the last `patience` seconds."""
        if known is None or known.node is None or known.node.incarnation == hello.incarnation:
            self._since.pop(hello.incarnation, None)
            return False
        self._since.setdefault(hello.incarnation, now)
        return now - known.node_at < self._patience

    def refusal(self, hello: msg.NodeHello, now: float) -> msg.Refused | None:
        """After three times the patience."""
        if now - self._since[hello.incarnation] < 3 * self._patience:
            return None
        del self._since[hello.incarnation]
        return msg.Refused(
            f"a node named {hello.node} is in the cluster already",
            "names tell nodes apart",
            "give this one another node.name",
        )


def refusal(
    hello: msg.NodeHello | msg.StageHello | msg.DraftHello, members: Iterable[Member]
) -> msg.Refused | None:
    """Why this hello is refused, by name; None when it is welcome."""
    version = VERSION
    if (hello.protocol, hello.version) != (msg.PROTOCOL, version):
        return msg.Refused(
            f"{hello.node} runs shardbus {hello.version} (protocol {hello.protocol}), "
            f"the coordinator {version} (protocol {msg.PROTOCOL})",
            "different versions need not agree on a frame",
            "install the same version on every node",
        )
    if isinstance(hello, msg.StageHello):
        for member in members:
            stage = member.stage
            if stage is None or member.name == hello.node:
                continue
            if (stage.mlx, stage.mlx_lm) != (hello.mlx, hello.mlx_lm):
                return msg.Refused(
                    f"{hello.node} has mlx {hello.mlx} and mlx-lm {hello.mlx_lm}, "
                    f"{member.name} has {stage.mlx} and {stage.mlx_lm}",
                    "their arithmetic may differ",
                    "install the same versions on every node",
                )
    return None
