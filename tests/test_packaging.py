"""What is installed is ours, whole and pinned."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["daemon", "ctl", "transports"])
def test_the_packages_are_ours(name: str) -> None:
    """Other distributions have these names too: python-daemon owns `daemon`."""
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve() == (ROOT / name / "__init__.py").resolve()


@pytest.mark.parametrize("script", ["shardd", "shardctl"])
def test_the_commands_resolve(script: str) -> None:
    module, _, function = PROJECT["project"]["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_folder_with_code_is_a_package() -> None:
    """setuptools leaves out folders without __init__.py, and nobody notices in an editable one."""
    missing = [
        folder
        for package in ("daemon", "ctl", "transports")
        for folder in {file.parent for file in (ROOT / package).rglob("*.py")}
        if not (folder / "__init__.py").exists()
    ]
    assert not missing


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.]+(; .+)?$", pin) for pin in pins)
    pinned = {normal(pin.partition("==")[0]) for pin in pins}
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    asked += [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {normal(re.split(r"[\[<>=; ]", line)[0]) for line in asked}
    assert names <= pinned
    assert "python-daemon" not in pinned


def test_shardctl_starts_without_mlx() -> None:
    code = "import sys, ctl.main; print({'mlx', 'mlx_lm', 'numpy'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")
