"""Numbers as people read them. JSON output never passes through here."""

from __future__ import annotations

NONE = "-"


def size(count: float | None) -> str:
    """Bytes, decimal units: `812 B`, `10.1 GB`."""
    if count is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def latency(seconds: float | None) -> str:
    """A short time: `41us`, `1.2ms`, `3.40s`."""
    if seconds is None:
        return NONE
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.999_5:
        return f"{seconds * 1e3:.1f}ms" if seconds < 0.099_95 else f"{seconds * 1e3:.0f}ms"
    return f"{seconds:.2f}s"


def age(seconds: float | None) -> str:
    """A long time in its two largest units: `12s`, `4m10s`, `3d2h`."""
    if seconds is None:
        return NONE
    whole = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for index, (name, length) in enumerate(units):
        if whole >= length or length == 1:
            text = f"{whole // length}{name}"
            if index + 1 < len(units):
                small, small_length = units[index + 1]
                rest = whole % length // small_length
                text += f"{rest}{small}" if rest else ""
            return text
    raise AssertionError("unreachable: seconds always match")


def share(part: float | None) -> str:
    """A share of one as per cent."""
    return NONE if part is None else f"{part * 100:.0f}%"


def rate(per_second: float | None) -> str:
    """Tokens per second."""
    if per_second is None:
        return NONE
    return f"{per_second:.1f}" if per_second < 99.95 else f"{per_second:.0f}"


def number(value: float | None) -> str:
    """A count, with thin groups of thousands."""
    return NONE if value is None else f"{value:,}".replace(",", " ")
