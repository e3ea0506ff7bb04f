"""`rdma_ctl status`, `sw_vers` and `sysctl`: the operating system, the model, the boot."""

from __future__ import annotations

import re

FIRST_VERSION = (26, 2)  # of macOS with RDMA over Thunderbolt (TN3205)


def parse_flag(text: str) -> str | None:
    """enabled or disabled: it prints the bare word. Other words are not guessed at."""
    word = text.strip().lower()
    return word if word in ("enabled", "disabled") else None


def parse_sw_vers(text: str) -> tuple[str, str] | None:
    """Version and build of macOS, as 26.5.1 and 25F80; "" for what it does not say."""
    return _pair(text, "ProductVersion", "BuildVersion")


def parse_sysctl(text: str) -> tuple[str, str] | None:
    """Model and boot, each "" where it is not known: `sysctl hw.model kern.bootsessionuuid`."""
    return _pair(text, "hw.model", "kern.bootsessionuuid")


def version_of(text: str) -> tuple[int, ...]:
    """() when it is none."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d{1,4}(\.\d{1,4})*", text) else ()


def _pair(text: str, first: str, second: str) -> tuple[str, str] | None:
    pair = _value(text, first), _value(text, second)
    return pair if any(pair) else None


def _value(text: str, name: str) -> str:
    match = re.search(rf"^{re.escape(name)}:[ \t]*(\S{{1,80}})[ \t]*$", text, re.MULTILINE)
    return match[1] if match else ""
