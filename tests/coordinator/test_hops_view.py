"""What `status` and `pipeline` show of the hops' paths."""

from __future__ import annotations

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.wish import Wish
from daemon.coordinator.views import hops_view
from daemon.hop_path import HopPath
from daemon.scheduler.hops import Hops
from daemon.scheduler.trace import PipelineStats
from tests.machine.world import World
from transports.frame import StageTrace


def test_each_hop_has_its_path_its_times_and_why_it_is_not_rdma() -> None:
    world = World("a", "b")
    world.want((4, 4), ("a", "b"))
    stats = PipelineStats(2)

    def shown() -> list[dict[str, object]]:
        hops = hops_view(world.cluster, stats, Hops("raw"), 10.0)
        keys = ("path", "not_rdma", "fallbacks", "p50")
        return [{key: hop[key] for key in keys} for hop in hops]

    def passed(start: float, seconds: float) -> None:
        first = StageTrace(0, start, start, start, start)
        then = (start + seconds,) * 4
        stats.observe([first, StageTrace(1, *then)], start, start + seconds)

    passed(1.0, 0.5)
    (entry, between, back) = shown()
    assert (entry["not_rdma"], back["not_rdma"]) == (None, None), "never by RDMA"
    assert between == {
        "path": "zmq (plain)", "not_rdma": "it is not enabled", "fallbacks": {}, "p50": 0.5
    }  # fmt: skip
    world.cluster.paths.wish(Wish("a", HopPath.RDMA, 1, 1, ""))
    world.step(cl.Tick())
    world.step(msg.PathTaken("a", "s1", world.cluster.epoch, 1, "rdma", ""))
    stats.path_changed(1, HopPath.RDMA, 2.0)
    passed(2.0, 0.125)
    between = shown()[1]
    assert between == {"path": "rdma", "not_rdma": None, "fallbacks": {}, "p50": 0.125}
    world.step(msg.PathLost("a", "s1", world.cluster.epoch, 1, True, "stalled", "it stands still"))
    between = shown()[1]
    assert between["fallbacks"] == {"stalled": 1}
    assert between["not_rdma"] == "a: it stands still"
    assert between["path"] == "zmq (plain)"
