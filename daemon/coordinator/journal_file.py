"""A file of records that only grows: each has its length and a checksum before it.

    u32 length   u32 crc32 of the payload   payload        little-endian, again and again

What is appended is with the operating system when `append` returns, and so outlives this process;
it is not synced, and what a machine's failure leaves of it ends at the first record that is torn.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

_HEAD = struct.Struct("<II")


def read_records(path: Path, most_bytes: int) -> tuple[list[bytes], str]:
    """The payloads up to the first damage, and what that is, "" for none. OSError when the file
    cannot be read; one that is not there has no records.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return [], ""
    if size > most_bytes:
        return [], f"{size} bytes, more than {most_bytes}"
    data = memoryview(path.read_bytes())
    records: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _HEAD.size > len(data):
            return records, f"torn at byte {at}"
        length, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) < length:
            return records, f"torn at byte {at}"
        if zlib.crc32(payload) != checksum:
            return records, f"damaged at byte {at}"
        records.append(bytes(payload))
        at += _HEAD.size + length
    return records, ""


class RecordFile:
    """Takes the place of the file of that name when it is made, with its first records in it."""

    def __init__(self, path: Path, records: Iterable[bytes]) -> None:
        """OSError when the disk refuses it; what was there stays."""
        fresh = path.with_name(f"{path.name}.new")
        # Nobody else is to read what was said.
        self._file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self.size = 0
        try:
            for record in records:
                self.append(record)
            fresh.replace(path)
        except OSError:
            self.close()
            fresh.unlink(missing_ok=True)
            raise

    def append(self, payload: bytes) -> None:
        """In one write. OSError when the disk refuses it, also part of it: use it no more then."""
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        written = os.write(self._file, data)
        if written < len(data):
            raise OSError(f"{written} of {len(data)} bytes were written")
        self.size += written

    def close(self) -> None:
        os.close(self._file)
