"""The annotated example is valid, mentions every key and tells the true defaults."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from daemon.config import SETTINGS, load

EXAMPLE = Path(__file__).parents[2] / "etc/shardbus.example.yaml"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("SHARDBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_it_is_valid_and_sets_every_key() -> None:
    config = load(EXAMPLE)
    assert config.file == EXAMPLE
    for setting in SETTINGS:
        assert config.origin(setting.path).startswith(f"{EXAMPLE}:"), setting.path


def test_the_defaults_it_names_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("")
    defaults = load(file)
    lines = EXAMPLE.read_text().splitlines()
    checked = 0
    for setting in SETTINGS:
        default = defaults.get(setting.path)
        if setting.path in ("node.name", "node.state_dir") or not default:
            continue  # told in words
        line = next(i for i, text in enumerate(lines) if re.match(rf"\s*{setting.name}:", text))
        start = next(i for i in range(line - 1, -1, -1) if not lines[i].lstrip().startswith("#"))
        comment = " ".join(text.strip("# ") for text in lines[start + 1 : line])
        wanted = f"{default:g}" if isinstance(default, float) else str(default).lower()
        assert re.search(rf"Default: {re.escape(wanted)}([.,;]|$)", comment), setting.path
        checked += 1
    assert checked >= 8
