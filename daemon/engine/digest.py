"""One hash that tells whether two machines hold the same model. No MLX."""

from __future__ import annotations

import hashlib
from pathlib import Path

from daemon.engine.checkpoint import read_header_bytes, weight_files
from daemon.engine.errors import UnreadableCheckpoint

WHOLE_BELOW = 64 << 20
SAMPLES = 64
SAMPLE_BYTES = 4096


def weights_digest(folder: Path) -> str:
    """SHA-256, in hex, over config.json and, for each weight file in order of name: name, size,
    header, content.

    Content is hashed whole when all files together have at most 64 MB. Above that it is 64 blocks
    of 4 KiB per file at evenly spaced offsets, the first and the last block among them: enough to
    tell models, revisions and cut-off copies apart in a moment, not enough against somebody who
    wants to deceive. Raises a LoadError for an unreadable folder.
    """
    files = weight_files(folder)
    whole = sum(file.stat().st_size for file in files) <= WHOLE_BELOW
    config = folder / "config.json"
    digest = hashlib.sha256()
    try:
        _add(digest, config.read_bytes())
        for file in files:
            size = file.stat().st_size
            _add(digest, file.name.encode())
            _add(digest, str(size).encode())
            _add(digest, read_header_bytes(file))
            with file.open("rb") as stream:
                if whole:
                    while block := stream.read(1 << 20):
                        digest.update(block)
                else:
                    for n in range(SAMPLES):
                        stream.seek(max(0, size - SAMPLE_BYTES) * n // (SAMPLES - 1))
                        digest.update(stream.read(SAMPLE_BYTES))
    except OSError as error:
        at = Path(error.filename) if error.filename else folder
        reason = error.strerror or "cannot be read"
        raise UnreadableCheckpoint(at, reason, "check the file's owner and rights") from error
    return digest.hexdigest()


def _add(digest: hashlib._Hash, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
