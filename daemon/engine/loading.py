"""Builds a model of which one stage's tensors are real and nothing else was read.

mlx-lm's own `load_model` does the work (configuration, renaming of tensors, every form of
quantisation). It is given a folder without weights; the tensors are handed to it where it calls the
model's `sanitize`. A first pass with placeholders only tells from the graph which parameters the
stage computes with and which stored tensors those are made from; the second pass reads these and
leaves the placeholders of all others unevaluated.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import _get_classes, load_model

from daemon.engine.caches import CachePlan
from daemon.engine.checkpoint import TensorEntry
from daemon.engine.compiling import uncompiled
from daemon.engine.dependencies import dependencies
from daemon.engine.errors import LoadError, MissingWeights, UnreadableCheckpoint
from daemon.engine.interception import PartialModel
from daemon.layers import LayerRange

Progress = Callable[[int, int], None]
_AGAIN = "copy or download the model again"
_DTYPES = {
    "BOOL": mx.bool_, "U8": mx.uint8, "I8": mx.int8, "F8_E4M3": mx.uint8, "F8_E8M0": mx.uint8,
    "I16": mx.int16, "U16": mx.uint16, "F16": mx.float16, "BF16": mx.bfloat16,
    "I32": mx.int32, "U32": mx.uint32, "F32": mx.float32, "I64": mx.int64, "U64": mx.uint64,
    "F64": mx.float32, "C64": mx.complex64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """A stage's share of a model. `tensors` are the names of the stored tensors that were opened;
    `parameters` is what it computes with, by path.
    """

    partial: PartialModel
    tensors: frozenset[str]
    files: frozenset[Path]
    weights_bytes: int
    parameters: Mapping[str, mx.array]


def load_part(
    folder: Path,
    catalog: Mapping[str, TensorEntry],
    layers: LayerRange,
    progress: Progress | None,
    compiled: bool,
    held: LoadedPart | None = None,
) -> LoadedPart:
    """Read the tensors of `layers`, of the embedding on the first stage, of norm and head on the
    last. What another part of the same model holds already is shared with it, not read again.

    Raises a LoadError; nothing is kept then. `progress` gets bytes done and bytes in all, after
    each parameter.
    `compiled` is what `compiler_works` said.
    """
    nothing = _placeholders(catalog.values())
    with uncompiled(compiled):
        sketch = _build(folder, nothing)
        sources = dependencies(_parameters(sketch), nothing)
        used = _used_parameters(PartialModel(sketch, layers), layers)
    shared = held.parameters if held else {}
    missing = used - shared.keys()
    wanted = frozenset[str]().union(*(sources[name] for name in missing))
    files = frozenset(catalog[name].file for name in wanted)
    model = _build(folder, {**nothing, **_open(files, wanted)})
    for index, layer in enumerate(model.layers):
        if not layers.start <= index < layers.end:
            strip(layer)
    kept = [(name, shared[name]) for name in used & shared.keys()]
    model.update(tree_unflatten(kept))
    _evaluate(model, missing, sum(catalog[name].nbytes for name in wanted), folder, progress)
    own = _parameters(model)
    return LoadedPart(
        PartialModel(model, layers),
        wanted,
        files,
        sum(own[name].nbytes for name in used),
        {name: own[name] for name in used},
    )


def _placeholders(entries: Iterable[TensorEntry]) -> dict[str, mx.array]:
    """Lazy arrays of the stored shapes. They take no memory as long as nobody evaluates them."""
    return {e.name: mx.zeros(e.shape, _DTYPES[e.dtype]) for e in entries}


def _open(files: Iterable[Path], wanted: frozenset[str]) -> dict[str, mx.array]:
    """The wanted tensors, lazily: MLX reads a tensor when it is evaluated, and never one that is
    dropped before.
    """
    found: dict[str, mx.array] = {}
    for file in files:
        try:
            arrays = mx.load(str(file))
        except RuntimeError as error:
            raise UnreadableCheckpoint(file, f"MLX cannot read it ({error})", _AGAIN) from error
        assert isinstance(arrays, dict)
        found.update((name, array) for name, array in arrays.items() if name in wanted)
    return found


def _build(folder: Path, raw: Mapping[str, mx.array]) -> Module:
    """The model with parameters made from `raw`, lazily."""

    def classes(config: dict[str, Any]) -> tuple[type[Module], type]:
        base, arguments = _get_classes(config)
        renames = getattr(base, "sanitize", None)

        def sanitize(model: Module, _: object) -> dict[str, mx.array]:
            return dict(renames(model, dict(raw))) if renames else dict(raw)

        def load_weights(model: Module, weights: Any, strict: bool = True) -> Module:
            base.load_weights(model, weights, strict=True)
            return model

        members = {"sanitize": sanitize, "load_weights": load_weights}
        return type(base.__name__, (base,), members), arguments

    with tempfile.TemporaryDirectory(prefix="shardbus-") as bare:
        for name in ("config.json", "hf_quant_config.json"):
            if (folder / name).exists():
                shutil.copy(folder / name, bare)
        try:
            model, _ = load_model(Path(bare), lazy=True, strict=False, get_model_classes=classes)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            # mlx-lm and the models raise these for tensors or settings that do not fit the
            # architecture.
            cause = " ".join(str(error).split())[:300]
            raise MissingWeights(
                folder, f"weights and config.json do not fit together ({cause})", _AGAIN
            ) from error
    assert isinstance(model, Module)
    return model


def _parameters(module: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(module.parameters()))


def _used_parameters(partial: PartialModel, layers: LayerRange) -> frozenset[str]:
    """Paths of the parameters that the stage's results depend on, for a prompt and for a single
    token.
    """
    model = partial.model
    cache = CachePlan(model, layers).new()
    results: dict[str, mx.array] = {}
    for step, n in enumerate((3, 1)):
        shape = (1, n, model.args.hidden_size)
        entering = mx.zeros(shape) if layers.start else None
        hidden = partial.body(mx.zeros((1, n), mx.int32), cache.entries, entering)
        cache.advance(n)
        results[f"body {step}"] = hidden
    if layers.end == len(model.layers):
        results["tail"] = partial.tail(hidden)
    parameters = _parameters(model)
    used = frozenset[str]().union(*dependencies(results, parameters).values())
    # A parameter that this trace did not reach may matter for another length: all of an own layer's
    # are kept.
    own = model.layers[layers.start : layers.end]
    owned = {id(array) for layer in own for array in _parameters(layer).values()}
    return used | {name for name, array in parameters.items() if id(array) in owned}


def strip(part: Any) -> None:
    """Delete the parameters of a layer that does not run here, so that none can be evaluated by
    accident; or of a whole model that is not to run any more.
    """
    for _, module in part.named_modules():
        for name in [name for name, value in module.items() if isinstance(value, mx.array)]:
            del module[name]


def _evaluate(
    model: Module, used: frozenset[str], total: int, folder: Path, progress: Progress | None
) -> None:
    done = 0
    for name, array in _parameters(model).items():
        if name not in used:
            continue
        try:
            mx.eval(array)
        except RuntimeError as error:
            raise LoadError(folder, f"reading {name} failed ({error})", _AGAIN) from error
        done += array.nbytes
        if progress is not None:
            progress(min(done, total), total)
    if progress is not None:
        progress(total, total)
    mx.clear_cache()
