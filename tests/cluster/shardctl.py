"""shardctl as its user runs it: a process, its streams and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.cluster.harness import PATIENCE, Cluster

COMMAND = [sys.executable, "-c", "from ctl.main import main; main()"]


def _environment(cluster: Cluster | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SHARDBUS_")}
    return kept if cluster is None else {**kept, "SHARDBUS_ENDPOINT": cluster.address}


def shardctl(
    cluster: Cluster | None, *words: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env=_environment(cluster),
        timeout=PATIENCE,
        check=False,
    )


def refused(cluster: Cluster | None, code: int, *words: str, stdin: bytes | None = None) -> str:
    """Run what must fail with this exit code; its one line of error, which says what, why and what
    to do.
    """
    done = shardctl(cluster, *words, stdin=stdin)
    error = done.stderr.decode()
    assert done.returncode == code, (done.returncode, error, done.stdout)
    assert done.stdout == b""
    assert error.count("\n") == 1, error
    assert error.startswith("error: "), error
    assert ": " in error.removeprefix("error: ") or "; " in error, error
    assert "Traceback" not in error
    return error


def all_refused(cluster: Cluster, code: int, *calls: Sequence[str]) -> list[str]:
    """As `refused` for each of these, several at a time: most of the time goes into starting."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda words: refused(cluster, code, *words), calls))


@contextmanager
def running(cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """shardctl to talk to; killed at the end if need be."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        env=_environment(cluster),
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
