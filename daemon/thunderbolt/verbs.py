"""`ibv_devices` and `ibv_devinfo -v`: the RDMA devices that the verbs library has."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from daemon.thunderbolt.facts import MOST_TEXT, NAME

MOST_GID = 45  # characters of an IPv6 address
MOST_GIDS = 32
STATES = {"PORT_ACTIVE": "active", "PORT_DOWN": "down"}
_LINE = re.compile(r"\s*([A-Za-z_]+(?:\[\s*\d+\])?)\s*:\s*(.*\S)")


@dataclass(frozen=True, slots=True)
class Device:
    """`state` of its first port: active, down, or as the tool calls it. `gids` by index, "" for one
    that is not shown.
    """

    name: str
    transport: str = ""
    state: str = ""
    gids: tuple[str, ...] = ()


def parse_devices(text: str) -> list[str] | None:
    """The names below the heading, in the tool's order. None when this is no such list: a tool that
    printed nothing has not said that there are none.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if any("No IB devices found" in line for line in text.splitlines()):
        return []
    heading = next((i for i, words in enumerate(lines) if words[:1] == ["device"]), None)
    if heading is None:
        return None
    rows = [words[0] for words in lines[heading + 1 :] if not set(words[0]) <= {"-"}]
    return [name for name in rows if NAME.fullmatch(name)]


def parse_devinfo(text: str) -> dict[str, Device]:
    """By name. Of several ports of one device only the first counts, as for JACCL."""
    found: dict[str, Device] = {}
    name = ""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        key, value = match[1].lower(), match[2]
        if key == "hca_id":
            name = value if NAME.fullmatch(value) else ""
            if name:
                found[name] = Device(name)
        elif not name:
            continue
        elif key == "transport":
            found[name] = replace(found[name], transport=value.partition("(")[0].strip())
        elif key == "port" and found[name].state:
            name = ""  # the second one
        elif key == "state":
            word = value.split()[0]
            found[name] = replace(found[name], state=STATES.get(word, word.lower()[:MOST_TEXT]))
        elif key.startswith("gid[") and (index := int(key[len("gid[") : -1])) < MOST_GIDS:
            gaps = ("",) * (index - len(found[name].gids))
            gid = value.split(",")[0].strip().lower()[:MOST_GID]
            found[name] = replace(found[name], gids=(*found[name].gids, *gaps, gid))
    return found
