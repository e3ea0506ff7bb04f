"""The BLAS is found, built or done without; and a stage that was started with it really runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.engine.blas import Blas, environment, find_blas, running_blas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have a good BLAS")

MULTIPLY = """if True:
    import mlx.core as mx
    from daemon.engine.blas import running_blas
    a, b = mx.random.normal((40, 70)), mx.random.normal((70, 30))
    slow = (a[:, :, None] * b[None]).sum(axis=1)
    assert mx.allclose(a @ b, slow, atol=1e-4).item()
    assert mx.allclose(b.T @ a.T, slow.T, atol=1e-4).item()
    z = (a + 1j * a) @ (b + 0j)
    assert mx.allclose(mx.real(z), slow, atol=1e-4).item()
    print(running_blas())
"""


def runs(blas: Blas) -> str:
    done = subprocess.run(
        [sys.executable, "-c", MULTIPLY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment(blas)},
    )
    return done.stdout.strip()


def test_system_library_comes_first(tmp_path: Path) -> None:
    real = tmp_path / "libopenblasp-r0.3.99.so"
    real.touch()
    (tmp_path / "libopenblas.so.0").symlink_to(real.name)
    found = find_blas(tmp_path / "cache", (tmp_path,))
    assert found == Blas("openblas 0.3.99 (system)", tmp_path / "libopenblas.so.0")


def test_whatever_is_found_here_is_what_runs(tmp_path: Path) -> None:
    blas = find_blas(tmp_path)
    assert runs(blas) == blas.name


@pytest.mark.skipif(shutil.which("cc") is None, reason="the shim needs a C compiler")
def test_shim_for_numpys_library(tmp_path: Path) -> None:
    blas = find_blas(tmp_path, ())
    assert blas.name == "openblas (numpy's, through shim)", blas.reason
    assert runs(blas) == blas.name
    assert blas.preload is not None
    made = blas.preload.stat().st_mtime_ns
    assert find_blas(tmp_path, (), cc="/bin/false") == blas  # from the cache
    assert blas.preload.stat().st_mtime_ns == made
    assert [p.name for p in tmp_path.iterdir()] == [blas.preload.name]


def test_without_a_compiler_the_reference_serves(tmp_path: Path) -> None:
    blas = find_blas(tmp_path, (), cc="/bin/false")
    assert (blas.name, blas.preload) == ("reference", None)
    assert blas.reason is not None
    assert "/bin/false" in blas.reason
    assert runs(blas) == "reference" or "LD_PRELOAD" in os.environ


def test_unusable_cache_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blas = find_blas(tmp_path / "file" / "below", ())
    assert blas.name == "reference"
    assert blas.reason is not None


def test_no_c_compiler_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    blas = find_blas(tmp_path, ())
    assert blas.reason is not None
    assert "no C compiler" in blas.reason


def test_environment_puts_it_first_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/lib/libjemalloc.so:/old/libopenblas.so.0")
    variables = environment(Blas("x", Path("/new/libopenblas.so.0")), threads=3)
    assert variables == {
        "LD_PRELOAD": "/new/libopenblas.so.0 /lib/libjemalloc.so",
        "OPENBLAS_NUM_THREADS": "3",
    }
    assert environment(Blas("reference")) == {"OPENBLAS_NUM_THREADS": "1"}


def test_numpys_own_copy_does_not_count() -> None:
    import numpy as np

    assert np.ones(2).sum() == 2
    if "LD_PRELOAD" not in os.environ:
        assert running_blas() == "reference"
