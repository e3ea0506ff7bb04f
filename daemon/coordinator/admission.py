"""Who may take part: nodes and stages of the same version, with the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from daemon import messages as msg
from daemon.cluster.member import Member


def refusal(hello: msg.NodeHello | msg.StageHello, members: Iterable[Member]) -> msg.Refused | None:
    """Why this hello is refused, by name; None when it is welcome."""
    version = metadata.version("shardbus")
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
