"""Find the file, read it, lay variables and flags over it, and check the whole.

Precedence: flag, environment variable, file, default. The file is the one named by a flag, else by
`$SHARDBUS_CONFIG`, else the first of `search_path()` that exists; a file that was named must exist.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from daemon.config.errors import ConfigError, did_you_mean
from daemon.config.schema import SECTIONS, SETTINGS, Config
from daemon.config.values import TextValue, Value, YamlValue

FILE_NAME = "shardbus.yaml"
MAX_FILE_BYTES = 1 << 20
_PATHS = {known.path: known for known in SETTINGS}


def search_path() -> list[Path]:
    """Where a file is looked for when none is named, best first."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folders = [Path(home) / "shardbus", Path("/etc/shardbus")]
    if sys.platform == "darwin":
        folders.insert(1, Path("/Library/Application Support/shardbus"))
    return [folder / FILE_NAME for folder in folders if folder.is_absolute()]


def find_file() -> Path | None:
    """The file that `load(None)` reads; None when there is none."""
    if named := os.environ.get("SHARDBUS_CONFIG"):
        return Path(named)
    return next((path for path in search_path() if os.path.exists(path)), None)


def load(path: Path | str | None = None, flags: Mapping[str, str] | None = None) -> Config:
    """The configuration, checked. `flags` maps dotted paths to what the operator typed."""
    file = Path(path) if path is not None else find_file()
    values: dict[str, Value] = dict(_read(file)) if file is not None else {}
    values |= _from_environment()
    for key, text in (flags or {}).items():
        if key not in _PATHS:
            raise _unknown("command line", key, _PATHS)
        values[key] = TextValue(key, "flag", text)
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    outside: dict[str, Any] = {}
    for key, value in values.items():
        known = _PATHS[key]
        target = sections[known.section] if known.section else outside
        target[known.name] = known.check(value)
    parts = {name: SECTIONS[name](**given) for name, given in sections.items()}
    origins = {key: value.origin for key, value in values.items()}
    config = Config(**parts, **outside, file=file, origins=origins)
    config.check()
    return config


def _read(file: Path) -> Iterator[tuple[str, Value]]:
    """The settings that a file gives."""
    root = _compose(file, _text(file))
    if root is None:
        return
    for name, (key, section) in _entries(YamlValue("", file, root)):
        if name == "models":  # a mapping of its own, no section
            if not section.empty:
                yield name, section
            continue
        if name not in SECTIONS:
            raise _unknown(key.origin, name, [*SECTIONS, "models"])
        for inner, (inner_key, value) in _entries(section):
            if f"{name}.{inner}" not in _PATHS:
                raise _unknown(inner_key.origin, f"{name}.{inner}", _PATHS, section=name)
            yield f"{name}.{inner}", value


def _entries(value: YamlValue) -> Iterator[tuple[str, tuple[Value, YamlValue]]]:
    """The pairs of a mapping; a section whose lines are all commented out has none."""
    if value.empty:
        return
    for key, item in value.entries():
        assert isinstance(item, YamlValue)
        yield key.text(), (key, item)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        why = str(error.strerror or error).lower()
        todo = "name another with --config, or mend this one's path or rights"
        raise ConfigError(str(file), "the file cannot be read", why, todo) from error
    if len(data) > MAX_FILE_BYTES:
        what, why = "the file is larger than 1 MiB", "no configuration is"
        raise ConfigError(str(file), what, why, "name another with --config")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{file}:{data.count(10, 0, error.start) + 1}"
        why = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise ConfigError(where, "the file is not text", why, "save it as UTF-8") from error


def _compose(file: Path, text: str) -> yaml.Node | None:
    try:
        loader = yaml.SafeLoader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        why = error.problem or "the parser stopped"
        raise ConfigError(where, "this is not valid YAML", why, "correct this line") from error
    except yaml.reader.ReaderError as error:
        where = f"{file}:{text.count(chr(10), 0, error.position) + 1}"
        why = f"the character #x{error.character:04x} is not allowed"
        raise ConfigError(where, "this is not valid YAML", why, "remove it") from error
    except RecursionError as error:
        what, why = "this is nested too deeply", "a configuration has two levels"
        raise ConfigError(str(file), what, why, "write it flat") from error


def _from_environment() -> dict[str, Value]:
    """`SHARDBUS_<SECTION>_<KEY>`. A mistyped one is refused; variables outside of the sections,
    SHARDBUS_CONFIG for one, belong to others.
    """
    variables = {known.variable: known.path for known in SETTINGS}
    prefixes = tuple(f"SHARDBUS_{name.upper()}_" for name in SECTIONS)
    found: dict[str, Value] = {}
    for name, text in os.environ.items():
        if name in variables:
            key = variables[name]
            found[key] = TextValue(key, f"env {name}", text)
        elif name.startswith(prefixes):
            raise _unknown("environment", name, variables)
    return found


def _unknown(where: str, key: str, known: Collection[str], section: str = "") -> ConfigError:
    here = [name for name in known if name.startswith(f"{section}.")] if section else known
    todo = did_you_mean(key, known, f"known are {', '.join(here)}")
    return ConfigError(where, f"unknown key '{key}'", "nothing would read it", todo)
