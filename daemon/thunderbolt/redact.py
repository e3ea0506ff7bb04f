"""What a report must not tell: addresses, identifiers, serial numbers, names of people's computers.

Each becomes a short hash of itself and of the report's salt, which is in no report: the same thing
has the same name everywhere in it, and nothing can be tried out against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

MOST_TEXT = 200_000  # characters of one tool
MOST_STRANGE = 2_000  # of one that did not say what it says
_UUID = re.compile(r"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b")
_MAPPED = re.compile(r"::ffff:(?=\d+\.\d)", re.IGNORECASE)
_COLONS = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:.])")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_LONG = re.compile(r"\b(?:0x)?[0-9A-Fa-f]{16}\b")
_SERIAL = re.compile(r"(?im)^(.*serial[^:=]*[:=]).*$")


class Redactor:
    def __init__(self, salt: str) -> None:
        self._salt = salt.encode()

    def text(self, text: str) -> str:
        """What a tool said, or any other words."""
        text = _SERIAL.sub(r"\1 (left out)", text[:MOST_TEXT])
        text = _UUID.sub(self._as("uuid"), text)
        text = _LONG.sub(self._long, text)
        text = _COLONS.sub(self._colons, text)
        # A GID that is an IPv4 address stays one: that is what it is looked at for.
        text = "::ffff:".join(_IPV4.sub(self._ipv4, part) for part in _MAPPED.split(text))
        return text

    def profile(self, text: str) -> str:
        """What system_profiler said: computers' names and serial numbers are left out by their
        keys.
        """
        try:
            return self.text(json.dumps(self._without_names(json.loads(text)), indent=1))
        except (ValueError, RecursionError):
            return self.text(text[:MOST_STRANGE])

    def value(self, value: Any) -> Any:
        """The same with all text in it redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(one) for key, one in value.items()}
        return [self.value(one) for one in value] if isinstance(value, list) else value

    def _without_names(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._without_names(one) for one in value]
        if not isinstance(value, dict):
            return value
        host = "domain_uuid_key" in value and "receptacle_1_tag" not in value
        return {
            key: "(left out)" if host and key == "_name" else self._without_names(one)
            for key, one in value.items()
            if "serial" not in key.lower()
        }

    def _name(self, kind: str, value: str) -> str:
        digest = blake2b(value.upper().encode(), key=self._salt, digest_size=4)
        return f"{kind}-{digest.hexdigest()}"

    def _as(self, kind: str) -> Callable[[re.Match[str]], str]:
        return lambda match: self._name(kind, match[0])

    def _long(self, match: re.Match[str]) -> str:
        digits = match[0].lower().removeprefix("0x")
        return match[0] if set(digits) <= {"0", "f"} else self._name("id", digits)

    def _colons(self, match: re.Match[str]) -> str:
        """A MAC address, a GUID, an IPv6 address, or something harmless as a time of day."""
        groups = match[0].split(":")
        lengths = {len(group) for group in groups}
        if len(groups) == 6 and lengths == {2}:
            return self._name("mac", match[0])
        if len(groups) == 4 and lengths == {4}:
            return self._name("id", match[0].replace(":", ""))
        try:
            address = IPv6Address(match[0])
        except AddressValueError:
            return match[0]
        if address.is_loopback or address.is_unspecified:
            return match[0]
        return ("fe80::" if address.is_link_local else "") + self._name("ip6", match[0])

    def _ipv4(self, match: re.Match[str]) -> str:
        try:
            address = IPv4Address(match[0])
        except AddressValueError:
            return match[0]
        mask = match[0].startswith("255.") or match[0] == "0.0.0.0"
        harmless = mask or address.is_loopback or address.is_link_local
        return match[0] if harmless else self._name("ip4", match[0])
