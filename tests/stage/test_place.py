"""Loads that fail, as the log has them and the coordinator hears of them, and those that do not."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from daemon import messages as msg
from daemon.config import Config
from daemon.config.sections import CoordinatorConfig, NodeConfig
from daemon.stage.background import Background
from daemon.stage.heartbeat import Progress
from daemon.stage.place import Place
from tests.engine.conftest import MakeTiny


class Idle:
    """Whatever is let go of: there is nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: ()


def test_a_load_that_fails_again_as_it_did_is_one_line(
    tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[msg.Message] = []
    idle = cast(Any, Idle())
    config = Config(NodeConfig(name="a"), CoordinatorConfig())
    place = Place(config, "i", idle, idle, idle, Progress(), lambda: 0.0, said.append)
    reasons = ["no kernel", "no kernel", "no memory"]

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(reasons.pop(0))

    monkeypatch.setattr("daemon.stage.loading.Stage.load", broken)
    monkeypatch.setattr("daemon.stage.loading.check_digest", lambda *_: None)
    folder: Path = tiny("llama", None).folder
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            place.load(msg.Load(1, "m", str(folder), "d", 0, 1), lambda done, total: None)
    first, second, third = caplog.records
    assert "no kernel" in first.getMessage()
    assert first.exc_info
    assert "as before" in second.getMessage()
    assert not second.exc_info
    assert "no memory" in third.getMessage()
    assert third.exc_info
    assert [one.why for one in said if isinstance(one, msg.LoadFailed)] == [
        "no kernel",
        "no kernel",
        "no memory",
    ]


def test_what_was_compiled_is_shared_unless_another_load_may_be_compiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is abandoned ends only at its next weight."""
    idle, shared, go_on = cast(Any, Idle()), [], threading.Event()
    config = Config(NodeConfig(name="a"), CoordinatorConfig())
    place = Place(config, "i", idle, idle, idle, Progress(), lambda: 0.0, idle.say)
    for name in ("folder", "open_ring", "told", "hold"):
        monkeypatch.setattr(place, name, idle.nothing)
    monkeypatch.setattr("daemon.stage.place.load_stage", lambda *_: idle)
    monkeypatch.setattr("daemon.stage.place.Worker", idle.nothing)
    monkeypatch.setattr("daemon.stage.place.settle", idle.nothing)
    monkeypatch.setattr("daemon.engine.kernels.exchange", lambda: shared.append("all"))
    monkeypatch.setattr("daemon.engine.kernels._folder", tmp_path / "home" / "compiling" / "own")
    (tmp_path / "home" / "warm").mkdir(parents=True)
    monkeypatch.setattr(Background, "run", lambda self: go_on.wait())
    load = msg.Load(1, "m", "folder", "d", 0, 1)
    other = Background(idle, Path(), config.node, None, 0, 0, idle)
    other.start()
    other.abandon()
    place.load(load, idle.nothing)
    assert not shared
    go_on.set()
    other.join()
    place.load(load, idle.nothing)
    assert shared == ["all", "all"], "before it and after it"
