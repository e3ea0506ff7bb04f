"""Layers loaded beside others: what is shared, what is refused, and what nobody wants any more."""

from __future__ import annotations

import pytest

from daemon import messages as msg
from daemon.config.sections import NodeConfig
from daemon.engine.digest import weights_digest
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from daemon.stage.background import Background, Done
from daemon.stage.mailbox import Mailbox
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Pipe, Tiny

PLENTY = 1 << 40


@pytest.fixture
def llama(tiny: MakeTiny) -> Tiny:
    return tiny("llama", None)


def load(
    llama: Tiny,
    held: Stage | None,
    room: int,
    digest: str = "",
    abandoned: bool = False,
    kv_bytes: int = 0,
) -> Done | None:
    """Layers [1, 4), which end up in the mailbox, or do not."""
    reports: Mailbox[Done] = Mailbox()
    digest = digest or weights_digest(llama.folder)
    asked = msg.Prepare(1, 1, "m", str(llama.folder), digest, 1, 4, False)
    thread = Background(asked, llama.folder, NodeConfig(name="a"), held, room, kv_bytes, reports)
    if abandoned:
        thread.abandon()
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive()
    done = None if abandoned else reports.take()
    reports.close()
    return done


def test_another_thread_s_stage_computes_here(llama: Tiny) -> None:
    first = Stage.load(llama.folder, LayerRange(0, 1))
    held = Stage.load(llama.folder, LayerRange(2, 4))
    done = load(llama, held, PLENTY)
    assert done
    assert done.ready
    held.discard()  # what both have stays
    assert Pipe([first, done.ready.stage]).generate(PROMPT, 12) == llama.reference[:12]


def test_what_has_no_room_beside_the_others_is_refused(llama: Tiny) -> None:
    held = Stage.load(llama.folder, LayerRange(2, 4))
    layer = held.info.layer_bytes[1]
    done = load(llama, held, layer - 1)
    assert done
    assert done.ready is None
    assert done.error
    assert f"{layer:,} bytes of layers" in str(done.error)
    done = load(llama, held, layer + 500, kv_bytes=1002)  # of two layers
    assert done
    assert f"{layer:,} bytes of layers and about 501 of their KV" in str(done.error)
    done = load(llama, held, layer + 501, kv_bytes=1002)
    assert done
    assert done.ready


def test_other_weights_than_the_coordinator_s_are_refused(llama: Tiny) -> None:
    done = load(llama, None, PLENTY, digest="0" * 64)
    assert done
    assert done.ready is None
    assert "digest" in str(done.error)


def test_what_nobody_wants_is_not_told_of(llama: Tiny) -> None:
    assert load(llama, None, PLENTY, abandoned=True) is None
