"""A report in a file: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctl.errors import CommandError, ExitCode
from ctl.render import records


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Put it there in one step, readable for its owner alone: what was there stays until then."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(records.document(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
        why = error.strerror or str(error)
        raise CommandError(ExitCode.FAILED, f"cannot write {path}", why) from error
