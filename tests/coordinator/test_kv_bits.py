"""A model whose KV cannot be quantised: said when the request comes in, before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.coordinator.answer import EXIT_USAGE, Answer, Refusal
from daemon.coordinator.intake import Intake
from daemon.engine.quantization import KVQuantization
from tests.coordinator.nodes import Nodes


def coordinator(quantization: KVQuantization) -> Any:
    """As much of one as taking a request looks at; `asked` counts the prompts to encode."""
    model = SimpleNamespace(
        spec=SimpleNamespace(name="tiny"), info=SimpleNamespace(kv_quantization=quantization)
    )
    asked: list[Any] = []
    desk = SimpleNamespace(waiting=0, submit=lambda *work: asked.append(work))
    cluster = SimpleNamespace(slots=(), members={})
    return SimpleNamespace(model=model, closing=False, desk=desk, asked=asked, cluster=cluster)


ANSWER = Answer(lambda client, message: True, b"client", 1)


def test_refused_by_name_with_the_reason() -> None:
    of = coordinator(KVQuantization(0, "its attention has sinks"))
    with pytest.raises(Refusal) as caught:
        Intake(of).generate(ANSWER, {"prompt": "x", "kv_bits": 4})
    assert caught.value.code == EXIT_USAGE
    assert caught.value.what == "tiny cannot hold its KV in 4 bits"
    assert caught.value.why == "its attention has sinks"
    assert "--kv-bits" in caught.value.todo
    assert of.asked == []
    Intake(of).generate(ANSWER, {"prompt": "x"})
    assert len(of.asked) == 1


def test_refused_where_the_device_of_one_stage_cannot(tmp_path: Path) -> None:
    of = Nodes(tmp_path, "a", "b")
    of.serve_toy(4, 4)
    member = of.cluster.members["b"]
    assert member.loaded
    member.loaded = replace(member.loaded, kv_footprints=[[0, 8, 0]])
    of.cluster.members["a"].loaded = replace(
        of.cluster.members["a"].loaded, kv_footprints=[[0, 8, 0], [8, 4, 0], [4, 2, 0]]
    )
    with pytest.raises(Refusal) as caught:
        of.intake.generate(ANSWER, {"prompt": "x", "raw": True, "kv_bits": 8})
    assert (caught.value.code, caught.value.what) == (
        EXIT_USAGE,
        "toy cannot hold its KV in 8 bits",
    )
    assert "device of b" in caught.value.why
    assert "--kv-bits 0" in caught.value.todo
    assert "shardctl logs b" in caught.value.todo
    assert of.desk.waiting == 0
    of.intake.generate(ANSWER, {"prompt": "x", "raw": True})
    assert of.desk.waiting == 1


def test_taken_where_it_can_be_done() -> None:
    of = coordinator(KVQuantization(64))
    Intake(of).generate(ANSWER, {"prompt": "x", "kv_bits": 8})
    assert len(of.asked) == 1


def test_a_stage_that_has_left_says_nothing_of_it() -> None:
    of = coordinator(KVQuantization(64))
    of.cluster.slots = (SimpleNamespace(node="a"),)
    Intake(of).generate(ANSWER, {"prompt": "x", "kv_bits": 8})
    assert len(of.asked) == 1
