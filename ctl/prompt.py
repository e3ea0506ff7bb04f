"""The prompt of a generation: argument, standard input, file, or several of them."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from pathlib import Path

from ctl.errors import CommandError, ExitCode

CHUNK = 1 << 16
PATIENCE_SECONDS = 2.0
NO_PROMPT = CommandError(
    ExitCode.USAGE,
    "there is no prompt",
    "neither an argument nor a pipe gave one",
    "write `shardctl generate 'text'`, `… | shardctl generate` or `shardctl generate -f FILE`",
)


def assemble(
    argument: str | None,
    file: str | None,
    note: Callable[[str], None],
    descriptor: int = 0,
) -> str:
    """The prompt. Standard input is read when it is asked for with `-`, or when it is no terminal
    and no file was named; what comes before the argument is joined to it by a line break. Text is
    taken as it is: final line breaks stay.
    """
    asked = "-" in (argument, file)
    own = None if argument in (None, "-") else argument
    named = None if file in (None, "-") else file
    parts = []
    piped = None
    if asked or (named is None and not _is_terminal(descriptor)):
        piped = _decoded(_read_input(descriptor, note), "standard input")
        parts.append(piped)
    if named is not None:
        parts.append(_decoded(_read_file(named), named))
    parts.append(own or "")
    text = "\n".join(part for part in parts if part)
    if text:
        return text
    if piped is not None and own is None:
        raise CommandError(
            ExitCode.USAGE,
            "the prompt is empty",
            "standard input ended without any text",
            "pipe text in, or give the prompt as an argument",
        )
    if named is not None or own is not None:
        raise CommandError(
            ExitCode.USAGE, "the prompt is empty", f"{named or 'the argument'} holds no text"
        )
    raise NO_PROMPT


def read_if_waiting(descriptor: int = 0) -> str:
    """What was piped in, or nothing: never waits for a writer who has not written yet."""
    if _is_terminal(descriptor) or not select.select([descriptor], [], [], 0)[0]:
        return ""
    return _decoded(_read_input(descriptor, lambda text: None), "standard input")


def _is_terminal(descriptor: int) -> bool:
    """Also true when there is no standard input at all."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return True
    return stat.S_ISCHR(mode) and os.isatty(descriptor)


def _read_input(descriptor: int, note: Callable[[str], None]) -> bytes:
    """Everything up to the end; says so when it has to wait for it."""
    pieces: list[bytes] = []
    patient = False
    while True:
        if not patient and not select.select([descriptor], [], [], PATIENCE_SECONDS)[0]:
            patient = True
            note("reading the prompt from standard input; end it with Ctrl-D, or use < /dev/null")
        try:
            piece = os.read(descriptor, CHUNK)
        except OSError as error:
            why = error.strerror or str(error)
            raise CommandError(ExitCode.FAILED, "cannot read standard input", why) from error
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _read_file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise CommandError(ExitCode.FAILED, f"cannot read {name}", why, "name another") from error


def _decoded(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(
            ExitCode.FAILED,
            f"{source} is not UTF-8",
            f"byte 0x{data[error.start]:02x} at offset {error.start}",
            "convert it, for example with `iconv -t UTF-8`",
        ) from error
