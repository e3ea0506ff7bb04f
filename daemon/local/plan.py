"""From what the operator asked for to a cluster that could be started."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.embedded import BUILT_IN
from daemon.local.cluster import LocalCluster
from daemon.local.errors import LocalError
from daemon.local.node import LocalNode

EMBEDDED = "embedded"
DEFAULT_NODES = 2
MAX_NODES = 64


def plan(
    state: Path,
    *,
    nodes: int | None = None,
    split: Sequence[int] | None = None,
    model: str = EMBEDDED,
    models: Mapping[str, Path] | None = None,
    port: int | None = None,
) -> LocalCluster:
    """A cluster that has not been started. `model` is a name from `models`, `embedded`, or a
    folder. The number of nodes follows from `split` when it is not given; without a split the
    coordinator gives every stage an equal share of the weights.
    """
    name, folder = _model(model, {**BUILT_IN, **(models or {})})
    layers = layer_count(folder)
    count = nodes if nodes is not None else len(split) if split else DEFAULT_NODES
    if not 1 <= count <= MAX_NODES:
        why = f"a local cluster has 1 to {MAX_NODES}"
        raise LocalError(f"{count} nodes", why, "correct --nodes", usage=True)
    if split is not None:
        _check_split(split, count, layers, name)
    elif layers is not None and count > layers:
        why = f"{name} has {layers} layers, and every stage needs one"
        raise LocalError(f"{count} nodes", why, "use fewer --nodes", usage=True)
    named = (f"n{index + 1}" for index in range(count))
    return LocalCluster(
        state=state.absolute(),
        endpoint=f"tcp://127.0.0.1:{_port(port)}",
        model=name,
        folder=folder,
        split=None if split is None else tuple(split),
        nodes=tuple(
            LocalNode(n, state.absolute() / f"{n}.yaml", state.absolute() / f"{n}.log")
            for n in named
        ),
    )


def even(layers: int, count: int) -> tuple[int, ...]:
    """`layers` over `count` stages; the first ones take what is left over."""
    each, more = divmod(layers, count)
    return tuple(each + (index < more) for index in range(count))


def layer_count(folder: Path) -> int | None:
    """How many layers the model in `folder` has; None when its configuration does not say."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LocalError(
            f"{folder} holds no model", "it has no config.json", "name a model's folder", usage=True
        ) from error
    except (OSError, ValueError) as error:
        raise LocalError(f"{path} cannot be read", str(error), "repair the model") from error
    for part in (config, config.get("text_config")) if isinstance(config, dict) else ():
        if isinstance(part, dict) and isinstance(part.get("num_hidden_layers"), int):
            return int(part["num_hidden_layers"])
    return None


def _model(wanted: str, known: Mapping[str, Path]) -> tuple[str, Path]:
    if wanted in known:
        return wanted, known[wanted]
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return folder.resolve().name.replace(" ", "-"), folder.resolve()
    raise LocalError(
        f"unknown model {wanted!r}",
        f"it is neither a folder nor one of {', '.join(sorted(known))}",
        "give a folder, or add it to `models` in the configuration",
        usage=True,
    )


def _check_split(split: Sequence[int], count: int, layers: int | None, name: str) -> None:
    text = ",".join(map(str, split))
    if len(split) != count:
        why = f"it has {len(split)} numbers for {count} nodes"
        raise LocalError(f"wrong split {text}", why, "give one number per node", usage=True)
    if min(split) < 1:
        why = "every stage needs at least one layer"
        raise LocalError(f"wrong split {text}", why, "use fewer nodes", usage=True)
    if layers is not None and sum(split) != layers:
        why = f"its sum is {sum(split)}, and {name} has {layers} layers"
        todo = f"write for example --split {','.join(map(str, even(layers, count)))}"
        raise LocalError(f"wrong split {text}", why, todo, usage=True)


def _port(wanted: int | None) -> int:
    """A port on loopback that is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            why = error.strerror or str(error)
            raise LocalError(f"port {wanted} is not free", why, "use another --port") from error
        return int(probe.getsockname()[1])
