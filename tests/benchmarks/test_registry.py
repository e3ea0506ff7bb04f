"""Every benchmark in the list can be run by its name."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

from benchmarks.__main__ import BENCHMARKS, ROOT


def test_every_entry_points_to_a_function() -> None:
    for where, what in BENCHMARKS.values():
        module, function = where.split(":")
        assert callable(getattr(import_module(module), function))
        assert what


def test_list_names_them_all_and_needs_no_mlx() -> None:
    code = (
        "import sys; sys.argv = ['benchmarks', 'list'];"
        "from benchmarks.__main__ import main; main(); assert 'mlx.core' not in sys.modules"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(BENCHMARKS)
