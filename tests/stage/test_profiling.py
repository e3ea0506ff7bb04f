"""A few layers of a model, measured and let go of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import messages as msg
from daemon.config.sections import NodeConfig
from daemon.engine.digest import weights_digest
from daemon.stage.profiling import profile
from tests.engine.tiny import Tiny

MakeTiny = Callable[[str, int | None], Tiny]


def ignore(done: int, total: int) -> None:
    pass


def asked(folder: Path, digest: str | None = None) -> msg.Profile:
    return msg.Profile(1, 7, "m", str(folder), digest or weights_digest(folder))


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_model_is_measured(architecture: str, tiny: MakeTiny) -> None:
    model = tiny(architecture, None)
    done = profile(
        asked(model.folder),
        model.folder,
        NodeConfig(name="n", max_memory=8 << 30, hidden_memory=0),
        ignore,
    )
    assert (done.query, done.node, done.why) == (7, "n", "")
    assert 0 <= done.start < done.end <= model.layers
    assert 0 < done.layer_seconds < 1
    assert 0 < done.head_seconds < 1
    assert 0 < done.prefill_token_seconds < 1
    assert done.memory_bytes == 6 << 30


def test_memory_is_that_of_weights_and_kv_though_kv_has_a_bound(tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    node = NodeConfig(name="n", max_memory=8 << 30, kv_memory=1 << 30, hidden_memory=0)
    assert profile(asked(model.folder), model.folder, node, ignore).memory_bytes == 6 << 30


def test_other_weights_are_not(tiny: MakeTiny) -> None:
    model = tiny("llama", None)
    done = profile(asked(model.folder, "0" * 64), model.folder, NodeConfig(name="n"), ignore)
    assert "weights digest" in done.why
    assert (done.start, done.end) == (0, 0)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert profile(asked(tmp_path, "0" * 64), tmp_path, NodeConfig(name="n"), ignore).why


@pytest.mark.parametrize("after", [0, 20])
def test_it_can_be_ended_while_it_reads(after: int, tiny: MakeTiny) -> None:
    """In the layers, or in the head's."""

    class Ended(Exception):
        pass

    seen: list[int] = []

    def end(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) > after:
            raise Ended

    folder = tiny("qwen3", None).folder
    with pytest.raises(Ended):
        profile(asked(folder), folder, NodeConfig(name="n"), end)
