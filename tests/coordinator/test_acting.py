"""What waiting clients hear of a model that cannot be loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from daemon.cluster import events as cl
from daemon.coordinator.acting import Acting


def heard(up: bool, kind: str) -> list[Any]:
    told: list[Any] = []
    of = SimpleNamespace(
        note=lambda *_: None,
        cluster=SimpleNamespace(up=up),
        clients=SimpleNamespace(streams=SimpleNamespace(waiting=told.append)),
    )
    Acting(cast(Any, of), cast(Any, None)).do([cl.Note(kind, "b", "x: no kernel")])
    return told


def test_who_waits_for_the_pipeline_hears_why_a_load_failed() -> None:
    assert heard(False, "load-failed") == ["x: no kernel"]
    assert heard(True, "load-failed") == [], "a spare may fail beside a pipeline that runs"
    assert heard(False, "joined") == []
