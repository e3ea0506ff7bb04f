"""One hash that tells whether two models mean the same by a token's id. No MLX."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from daemon.engine.checkpoint import read_json
from daemon.engine.errors import UnreadableCheckpoint


def vocabulary_digest(folder: Path) -> str:
    """SHA-256, in hex, over the pairs of id and token in the folder's tokenizer.json, in the order
    of ids. How text is cut into tokens does not count. Raises UnreadableCheckpoint.
    """
    file = folder / "tokenizer.json"
    tokenizer = read_json(file)
    try:
        pairs = sorted({*_pairs(tokenizer["model"]["vocab"]), *_added(tokenizer)})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"has no vocabulary ({error})"
        raise UnreadableCheckpoint(file, why, "copy the model again") from error
    digest = hashlib.sha256()
    for number, token in pairs:
        data = token.encode("utf-8", "surrogatepass")
        digest.update(f"{number} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _pairs(vocabulary: Any) -> list[tuple[int, str]]:
    """A map from token to id, or, of a Unigram model, pairs of token and score in order."""
    if isinstance(vocabulary, list):
        return [(number, str(token)) for number, (token, _) in enumerate(vocabulary)]
    return [(int(number), token) for token, number in vocabulary.items()]


def _added(tokenizer: dict[str, Any]) -> list[tuple[int, str]]:
    return [(int(one["id"]), str(one["content"])) for one in tokenizer.get("added_tokens", ())]
