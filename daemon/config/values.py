"""A value as somebody wrote it, with the place where it was written.

It comes from a YAML file (`YamlValue`) or as plain text from an environment variable or a flag
(`TextValue`). Both are asked for a type and either have it or raise a ConfigError that names the
place. Nothing is converted silently: `name: 12` and `name: yes` are not text.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from pathlib import Path

import yaml

from daemon.config.errors import ConfigError

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Value(ABC):
    """`key` is the dotted path, `origin` the place, `base` what a relative path starts from."""

    def __init__(self, key: str, origin: str, base: Path) -> None:
        self.key, self.origin, self.base = key, origin, base

    def error(self, what: str, why: str, todo: str) -> ConfigError:
        """A ConfigError about this value; `what` goes on after the key's name."""
        return ConfigError(self.origin, f"{self.key or 'the file'} {what}", why, todo)

    @abstractmethod
    def text(self) -> str: ...

    @abstractmethod
    def word(self) -> str:
        """Text, or a whole number as it is written."""

    @abstractmethod
    def choice(self) -> str:
        """Text, or one of YAML's many words for true and false, as it is written: `off`."""

    @abstractmethod
    def integer(self) -> int: ...

    @abstractmethod
    def number(self) -> float: ...

    @abstractmethod
    def boolean(self) -> bool: ...

    @abstractmethod
    def items(self) -> list[Value]: ...

    @abstractmethod
    def entries(self) -> list[tuple[Value, Value]]:
        """The pairs of a mapping, in order; no key comes twice."""

    def _number(self, written: str) -> float:
        try:
            number = float(written)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong("a number", repr(written))
        return number

    def _wrong(self, wanted: str, found: str, todo: str = "") -> ConfigError:
        return self.error(f"is {found}", f"it must be {wanted}", todo or f"write {wanted}")

    def _twice(self, key: Value) -> ConfigError:
        return key.error(
            f"has the key '{key.text()}' twice", "only one could hold", "remove one of them"
        )


class TextValue(Value):
    """Plain text: lists are separated by commas, mappings are `name=value,name=value`."""

    def __init__(self, key: str, origin: str, written: str) -> None:
        super().__init__(key, origin, Path.cwd())
        self._text = written

    def text(self) -> str:
        return self._text

    def word(self) -> str:
        return self._text

    def choice(self) -> str:
        return self._text

    def integer(self) -> int:
        if not _INTEGER.match(self._text):
            raise self._wrong("a whole number", repr(self._text))
        return int(self._text)

    def number(self) -> float:
        return self._number(self._text)

    def boolean(self) -> bool:
        if self._text.lower() not in _BOOLEANS:
            raise self._wrong("true or false", repr(self._text))
        return _BOOLEANS[self._text.lower()]

    def items(self) -> list[Value]:
        parts = [part.strip() for part in self._text.split(",")]
        return [TextValue(self.key, self.origin, part) for part in parts if part]

    def entries(self) -> list[tuple[Value, Value]]:
        pairs: dict[str, tuple[Value, Value]] = {}
        for item in self.items():
            name, equals, value = item.text().partition("=")
            if not equals:
                raise self._wrong("name=value,name=value", repr(item.text()))
            key = TextValue(self.key, self.origin, name)
            if name in pairs:
                raise self._twice(key)
            pairs[name] = (key, TextValue(f"{self.key}.{name}", self.origin, value))
        return list(pairs.values())


class YamlValue(Value):
    """A node of a composed YAML document, which still knows its line."""

    def __init__(self, key: str, file: Path, node: yaml.Node) -> None:
        super().__init__(key, f"{file}:{node.start_mark.line + 1}", file.absolute().parent)
        self._file, self._node = file, node

    @property
    def empty(self) -> bool:
        """Nothing, `~` or `null` stands there."""
        return self._tag() == "null"

    def text(self) -> str:
        return self._scalar("text", "str", "write it in quotes if it is meant as text")

    def word(self) -> str:
        return self._scalar("text or a whole number", "str int")

    def choice(self) -> str:
        return self._scalar("text", "str bool")

    def integer(self) -> int:
        written = self._scalar("a whole number", "int")
        if not _INTEGER.match(written):  # YAML 1.1 has 0x10, 1_000 and 1:30 too
            raise self._wrong("a whole number", repr(written), "write it with decimal digits only")
        return int(written)

    def number(self) -> float:
        return self._number(self._scalar("a number", "int float"))

    def boolean(self) -> bool:
        return _BOOLEANS[self._scalar("true or false", "bool").lower()]

    def items(self) -> list[Value]:
        if not isinstance(self._node, yaml.SequenceNode):
            raise self._wrong("a list", self._found(), "write it as [a, b]")
        return [YamlValue(self.key, self._file, node) for node in self._node.value]

    def entries(self) -> list[tuple[Value, Value]]:
        if not isinstance(self._node, yaml.MappingNode):
            raise self._wrong("a mapping", self._found(), "write `name: value`, one a line")
        pairs: dict[str, tuple[Value, Value]] = {}
        for key_node, value_node in self._node.value:
            key = YamlValue(self.key, self._file, key_node)
            name = key.text()
            if name in pairs:
                raise self._twice(key)
            path = f"{self.key}.{name}" if self.key else name
            pairs[name] = (key, YamlValue(path, self._file, value_node))
        return list(pairs.values())

    def _tag(self) -> str:
        return str(self._node.tag).rpartition(":")[2]

    def _scalar(self, wanted: str, tags: str, todo: str = "") -> str:
        if not isinstance(self._node, yaml.ScalarNode) or self._tag() not in tags.split():
            if self.empty:
                todo = "give it one, or remove the line"
                raise self.error("has no value", f"it must be {wanted}", todo)
            raise self._wrong(wanted, self._found(), todo)
        return str(self._node.value)

    def _found(self) -> str:
        if isinstance(self._node, yaml.SequenceNode):
            return "a list"
        if isinstance(self._node, yaml.MappingNode):
            return "a mapping"
        kinds = {"int": "a number", "float": "a number", "bool": "a boolean", "str": "text"}
        kind = kinds.get(self._tag(), f"of the YAML type {self._tag()}")
        return f"'{self._node.value}', {kind}"
