"""A model whose KV cannot be quantised: said when the request comes in, before anything runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from daemon.coordinator.answer import EXIT_USAGE, Answer, Refusal
from daemon.coordinator.intake import Intake
from daemon.engine.quantization import KVQuantization


def coordinator(quantization: KVQuantization) -> Any:
    """As much of one as taking a request looks at; `asked` counts the prompts to encode."""
    model = SimpleNamespace(
        spec=SimpleNamespace(name="tiny"), info=SimpleNamespace(kv_quantization=quantization)
    )
    asked: list[Any] = []
    desk = SimpleNamespace(waiting=0, submit=lambda *work: asked.append(work))
    return SimpleNamespace(model=model, closing=False, desk=desk, asked=asked)


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


def test_taken_where_it_can_be_done() -> None:
    of = coordinator(KVQuantization(64))
    Intake(of).generate(ANSWER, {"prompt": "x", "kv_bits": 8})
    assert len(of.asked) == 1
