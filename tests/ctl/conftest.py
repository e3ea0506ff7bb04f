"""Fixtures for the tests of shardctl."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import pytest

from ctl.main import run
from ctl.signals import Signals
from tests.ctl.fake import Answer, FakeCoordinator, environment


@pytest.fixture
def coordinator() -> Iterator[Callable[..., FakeCoordinator]]:
    """Starts scripted coordinators: verbs with a dot are written with an underscore."""
    started: list[FakeCoordinator] = []

    def start(**scripts: Answer) -> FakeCoordinator:
        named = {name.replace("_", "."): script for name, script in scripts.items()}
        started.append(FakeCoordinator(named))
        return started[-1]

    yield start
    for fake in started:
        fake.close()


@pytest.fixture
def ctl(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command line in this process; a process of its own costs a quarter of a second."""

    def call(
        *words: str, stdin: bytes | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch, tempfile.TemporaryFile() as file:
            wanted = environment(**variables)
            for name in set(os.environ) - set(wanted):
                patch.delenv(name)
            for name, value in wanted.items():
                patch.setenv(name, value)
            file.write(stdin or b"")
            file.seek(0)
            saved = os.dup(0)
            os.dup2(file.fileno(), 0)
            try:
                capfd.readouterr()
                status = run(list(words), Signals())
            finally:
                os.dup2(saved, 0)
                os.close(saved)
            captured = capfd.readouterr()
        return subprocess.CompletedProcess(words, status, captured.out, captured.err)

    return call
