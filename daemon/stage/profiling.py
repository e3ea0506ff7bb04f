"""What this machine would make of a model: measured on a few of its layers, which are let go of
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from daemon import logs
from daemon import messages as msg
from daemon.config.sections import NodeConfig
from daemon.engine.errors import LoadError
from daemon.engine.model import read_model
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from daemon.stage.loading import check_digest, machine_memory, usable_memory

log = logs.get("stage")
MOST_LAYERS = 4  # so many tell what one costs beside what every pass does


def profile(
    asked: msg.Profile, folder: Path, node: NodeConfig, progress: Callable[[int, int], None]
) -> msg.Profiled:
    """Takes seconds. What goes wrong is the answer's `why`. What `progress` raises passes through;
    it is called with bytes read and bytes in all of what is read at a time.
    """
    failed = msg.Profiled(asked.query, node.name, asked.digest, 0, 0, 0.0, 0.0, 0.0, 0, "")
    try:
        return _measured(asked, folder, node, progress)
    except LoadError as error:
        why = str(error)
    except (RuntimeError, ValueError, MemoryError, OSError) as error:  # MLX's, the disk's
        log.exception("profiling failed")
        why = str(error)
    finally:
        mx.clear_cache()
    return replace(failed, why=why)


def _measured(
    asked: msg.Profile, folder: Path, node: NodeConfig, progress: Callable[[int, int], None]
) -> msg.Profiled:
    check_digest(folder, asked.digest)
    total = read_model(folder).layers
    count = min(MOST_LAYERS, total)
    start = (total - count) // 2  # the first and the last ones are the odd ones, where any are
    layers = LayerRange(start, start + count)
    speed = Stage.load(folder, layers, progress=progress).warm()
    last = LayerRange(total - 1, total)
    head = speed.head or Stage.load(folder, last, progress=progress).head_seconds()
    return msg.Profiled(
        asked.query,
        node.name,
        asked.digest,
        layers.start,
        layers.end,
        min(speed.decode)[1] - speed.head,
        speed.prefill,
        head,
        usable_memory(node, machine_memory()),
        "",
    )
