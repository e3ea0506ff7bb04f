"""A llama that repeats itself now and then, and costs what a random one of its shape does.

An untrained model repeats nothing, or one token for ever. This one is random but for its ends: the
embedding outweighs the layers, and the head has its rows in another order, so that each token is
followed by the next of its cycle, until the layers' noise leads to another cycle. More than half of
an answer is what its own n-grams say; where it goes elsewhere they are silent or wrong.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.models import STATE, RandomLlama

CYCLE = 12  # tokens
LOUDER = 130.0  # than the random model's embedding
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def repeating_llama(model: RandomLlama, root: Path = STATE) -> Path:
    """The checkpoint's folder; written when it is not there yet, and only whole."""
    source = model.folder(root)
    folder = source.with_name(f"{source.name}-repeating")
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        _change_ends(part)
        part.rename(folder)
    return folder


def predecessors(vocabulary: int) -> list[int]:
    """Which token each one follows. Those of an unfinished last cycle follow themselves."""
    whole = vocabulary - vocabulary % CYCLE
    return [t - t % CYCLE + (t - 1) % CYCLE if t < whole else t for t in range(vocabulary)]


def _change_ends(folder: Path) -> None:
    import mlx.core as mx  # here, so that listing benchmarks needs no MLX

    index_file = folder / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    file = index["weight_map"][EMBEDDING]
    weights = mx.load(str(folder / file))
    assert isinstance(weights, dict)
    weights[EMBEDDING] = LOUDER * weights[EMBEDDING]
    weights[HEAD] = weights[EMBEDDING][mx.array(predecessors(len(weights[EMBEDDING])))]
    mx.eval(weights)
    mx.save_safetensors(str(folder / file), weights, {"format": "pt"})
    index["weight_map"][HEAD] = file
    index["metadata"]["total_size"] += weights[HEAD].nbytes
    index_file.write_text(json.dumps(index, indent=2) + "\n")
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text()) | {"tie_word_embeddings": False}
    config_file.write_text(json.dumps(config, indent=2) + "\n")
