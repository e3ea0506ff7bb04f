"""A cluster of several `shardd` on this machine: planned, started as a whole or not at all, found
again later, ended without ever hitting a foreign process.

Everything lives in one state folder: `cluster.json` (who runs), `lock`, and per node `NAME.yaml`,
`NAME.log` and a folder of its own. No MLX here.
"""

from daemon.local.cluster import LocalCluster, default_state, find
from daemon.local.errors import LocalError
from daemon.local.node import LocalNode
from daemon.local.plan import EMBEDDED, even, layer_count, plan

__all__ = [
    "EMBEDDED",
    "LocalCluster",
    "LocalError",
    "LocalNode",
    "default_state",
    "even",
    "find",
    "layer_count",
    "plan",
]
