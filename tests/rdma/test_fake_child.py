"""The fake children go wrong as they say, and a stage sees each of them for what it is."""

from __future__ import annotations

import pytest

from daemon import messages as msg
from tests.rdma.rig import Rig
from tests.transports.contract import work

FAKE = "tests.rdma.fake_child"


@pytest.mark.parametrize(
    ("fault", "reason", "code"),
    [
        ("segfault", "gone", -11),
        ("abort", "gone", -6),
        ("spin", "stalled", None),
        ("midframe", "stalled", None),
        ("lies", "damaged", None),
    ],
)
def test_a_fault_is_seen_for_what_it_is(
    rig: Rig, fault: str, reason: str, code: int | None
) -> None:
    port = rig.listen(0)
    process = rig.start(0, FAKE, environment={"FAKE_RDMA": fault})
    rig.until(lambda: port.peer)
    assert rig.hear(msg.RdmaJoined).pid == process.pid
    port.sender(1).send(work(1))
    rig.until(lambda: port.receive(0) or rig.losses)
    assert rig.losses[0].reason == reason
    assert port.stats.frames == 0
    if code is not None:
        assert process.wait(10) == code
    else:
        assert process.poll() is None


def test_words_on_the_way_out(rig: Rig) -> None:
    text = "[jaccl] Changing queue pair to RTR failed with errno 22"
    process = rig.start(0, FAKE, environment={"FAKE_RDMA": f"exit:{text}"})
    assert rig.last_line(process) == text
    assert process.returncode == 1


def test_a_probe_that_goes_badly(rig: Rig) -> None:
    rig.start(0, FAKE, environment={"FAKE_RDMA": "probes:another checksum"})
    rig.hear(msg.RdmaJoined)
    rig.say(0, msg.RdmaProbe(1, 1, 4, 1))
    assert rig.hear(msg.RdmaProbed).why == "another checksum"
