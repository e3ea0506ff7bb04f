"""What MLX compiles lies in a folder of the process, and is shared only when it is whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.engine import kernels

PROGRAM = """if True:
    import json, os, sys, tempfile
    from pathlib import Path
    from daemon.engine import kernels
    kernels.enter()
    own = Path(os.environ["TMPDIR"])
    found = sorted(p.name for p in own.rglob("*.so"))
    import mlx.core as mx
    if "publish" in sys.argv:
        (own / "half.o").write_bytes(b"half")
        mx.eval(mx.compile(lambda x: mx.exp(x) * x + 1)(mx.ones((2,))))
        kernels.exchange()
    made = sorted(p.name for p in own.rglob("*.so"))
    print(json.dumps([str(own), found, made, tempfile.gettempdir()]))
"""


def run(folder: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles with g++ on the CPU")
def test_what_one_has_compiled_the_next_finds(tmp_path: Path) -> None:
    first, found, made, temporary = run(tmp_path, "publish")
    assert not found
    assert made
    assert temporary == str(tmp_path), "Python's own files are where they were"
    second, found, _, _ = run(tmp_path)
    assert found == made
    assert second != first
    assert not [*Path(second).rglob("half.o")], "as of a compiler that was killed"
    assert not Path(first).exists(), "it has ended"
    assert not (tmp_path / "mlx").exists(), "what all processes would share"


def test_half_a_library_is_nobody_elses(tmp_path: Path) -> None:
    """As of a process that was killed while it compiled."""
    own, *_ = run(tmp_path)
    half = Path(own) / "mlx" / "libhalf.so"
    half.parent.mkdir()
    half.write_bytes(b"half")
    _, found, _, _ = run(tmp_path)
    assert not found
    assert not half.exists()


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    home = tmp_path / f"shardbus-{os.getuid()}"
    home.mkdir()
    home.chmod(0o777)
    own, *_ = run(tmp_path)
    assert own == str(tmp_path), "MLX's own place"


def test_the_folder_of_a_process_that_cannot_be_seen_stays(tmp_path: Path) -> None:
    """It may live in another container with the same folder for temporary files."""
    compiling = tmp_path / f"shardbus-{os.getuid()}" / "compiling"
    unseen = compiling / "999999999-x"  # no process has this id
    unseen.mkdir(parents=True)
    compiling.parent.chmod(0o700)
    descriptor = os.open(unseen, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        run(tmp_path)
        assert unseen.exists()
    finally:
        os.close(descriptor)
    run(tmp_path)
    assert not unseen.exists()


def test_the_folder_of_a_dead_process_goes_though_its_id_is_used_again(tmp_path: Path) -> None:
    compiling = tmp_path / f"shardbus-{os.getuid()}" / "compiling"
    dead = compiling / f"{os.getpid()}-x"
    dead.mkdir(parents=True)
    compiling.parent.chmod(0o700)
    run(tmp_path)
    assert not dead.exists()


def test_what_has_another_name_is_no_reason_not_to_start(tmp_path: Path) -> None:
    compiling = tmp_path / f"shardbus-{os.getuid()}" / "compiling"
    compiling.mkdir(parents=True)
    compiling.parent.chmod(0o700)
    (compiling / "notes").write_text("")
    own, *_ = run(tmp_path)
    assert Path(own).parent == compiling


def test_nothing_is_made_where_another_users_link_points(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"shardbus-{os.getuid()}").symlink_to(elsewhere)
    own, *_ = run(tmp_path)
    assert own == str(tmp_path), "MLX's own place"
    assert not [*elsewhere.iterdir()]


class WouldWait(Exception):
    pass


def refuse() -> None:
    raise WouldWait


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process."""
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.setattr(kernels, "_folder", None)
    monkeypatch.setenv("TMPDIR", "")
    kernels.enter()
    return Path(os.environ["TMPDIR"])


def test_of_those_that_start_together_one_compiles(own: Path) -> None:
    kernel = own / "mlx" / "libone.so"
    shared = own.parent.parent / "kernels" / "mlx" / "libone.so"
    with kernels.warming("a", refuse):
        with pytest.raises(WouldWait), kernels.warming("b", refuse):
            pass
        kernel.parent.mkdir()
        kernel.write_bytes(b"whole")
    assert shared.exists(), "the next one finds it"
    with kernels.warming("b", refuse), kernels.warming("a", refuse):
        pass  # what was compiled once waits for nobody


def test_what_could_not_be_warmed_is_not_marked(own: Path) -> None:
    with pytest.raises(OSError, match="it fails"), kernels.warming("a", refuse):
        raise OSError("it fails")
    with kernels.warming("b", refuse), pytest.raises(WouldWait), kernels.warming("a", refuse):
        pass


def test_who_compiles_for_ever_is_not_waited_for(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LONGEST_SECONDS", 0.0)
    with kernels.warming("a", refuse), kernels.warming("b", refuse):
        pass


def test_without_any_folder_for_temporary_files_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setenv("TMPDIR", "/where/it/was")
    monkeypatch.setattr("tempfile.gettempdir", none)
    kernels.enter()
    assert os.environ["TMPDIR"] == "/where/it/was"
