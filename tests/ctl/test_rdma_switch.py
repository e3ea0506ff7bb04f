"""`shardctl rdma enable`, `disable` and `test`: what is asked, printed, and how they end."""

import json

from daemon.messages import Chunk, Reply
from tests.ctl.fake import failure, reply

READY = {
    "from": "studio", "to": "mini", "path": "rdma", "wished": "rdma", "why": None,
    "round_trip_seconds": 4e-5, "bytes_per_second": 4.2e9,
}  # fmt: skip
STAYS = {
    "from": "mini", "to": "air", "path": "zmq", "wished": "zmq", "why": "air: it has Thunderbolt 4",
    "round_trip_seconds": None, "bytes_per_second": None,
}  # fmt: skip
NODES = [
    {"node": "studio", "backends": ["jaccl"], "devices": ["rdma_en5"], "starts_left": 2,
     "why": None, "pid": 71},
    {"node": "air", "backends": [], "devices": [], "starts_left": 0,
     "why": "it has Thunderbolt 4", "pid": None},
]  # fmt: skip
GROUP = {
    "group": 3, "backend": "jaccl", "nodes": ["studio", "mini"], "state": "standing",
    "test": False,
}  # fmt: skip
ENABLED = {
    "enabled": True, "settled": True, "group": GROUP, "why": None, "quarantine": [],
    "nodes": NODES, "hops": [READY], "dry_run": False,
}  # fmt: skip
TABLE = """\
RDMA enabled · group 3 by jaccl: studio, mini, standing
FROM    TO    PATH  ROUND TRIP  BANDWIDTH  WHY NOT RDMA
studio  mini  rdma        40us   4.2 GB/s  -
mini    air   zmq            -          -  air: it has Thunderbolt 4
! air: it has Thunderbolt 4
"""
PORTS = reply({"machines": {}, "silent": []})
PAIR = {
    "a": "studio", "b": "mini", "backend": "jaccl", "round_trip_seconds": 4e-5,
    "bytes_per_second": 4.2e9, "why": "", "dry_run": False,
}  # fmt: skip


def followed(fake, peer, request):
    hop = READY | {"path": "zmq", "why": "the group is being started"}
    fake.say(peer, Chunk(request.request, {"hops": [hop]}))
    fake.say(peer, Chunk(request.request, {"hops": [hop]}))
    fake.say(peer, Reply(request.request, ENABLED))


def test_every_hop_got_it(ctl, coordinator):
    fake = coordinator(rdma_ports=PORTS, rdma_enable=followed)
    done = ctl("rdma", "enable", "-v", "--endpoint", fake.endpoint)
    assert done.returncode == 0
    assert "studio  mini  rdma" in done.stdout
    assert "reach this machine's memory" in done.stderr
    assert done.stderr.count("studio to mini: the group is being started") == 1
    assert fake.wait_for("rdma.enable").arguments == {"dry_run": False}


def test_some_hops_stay(ctl, coordinator):
    fake = coordinator(rdma_ports=PORTS, rdma_enable=reply(ENABLED | {"hops": [READY, STAYS]}))
    done = ctl("rdma", "enable", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (3, TABLE)
    assert "1 of 2 hops stay on ZeroMQ: air: it has Thunderbolt 4" in done.stderr
    done = ctl("rdma", "enable", "-o", "json", "--endpoint", fake.endpoint)
    assert done.returncode == 3
    assert json.loads(done.stdout)["hops"][1]["why"] == STAYS["why"]
    assert json.loads(done.stderr)["error"]["code"] == 3


def test_what_enabling_would_do(ctl, coordinator):
    told = ENABLED | {"enabled": False, "group": None, "hops": [STAYS], "dry_run": True}
    fake = coordinator(rdma_ports=PORTS, rdma_enable=reply(told))
    done = ctl("rdma", "enable", "--dry-run", "--endpoint", fake.endpoint)
    assert done.returncode == 0
    assert done.stdout.startswith("RDMA not enabled\n")
    assert fake.wait_for("rdma.enable").arguments == {"dry_run": True}


def test_enabled_without_a_model(ctl, coordinator):
    fake = coordinator(
        rdma_ports=PORTS, rdma_enable=reply(ENABLED | {"group": None, "hops": [], "nodes": []})
    )
    done = ctl("rdma", "enable", "--endpoint", fake.endpoint)
    assert done.returncode == 0
    assert "no hops: no model is loaded" in done.stdout


def test_disable(ctl, coordinator):
    fake = coordinator(rdma_disable=reply(ENABLED | {"enabled": False, "changed": True}))
    done = ctl("rdma", "disable", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, "RDMA is disabled\n")
    fake = coordinator(rdma_disable=reply(ENABLED | {"enabled": False, "changed": False}))
    done = ctl("rdma", "disable", "--dry-run", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, "RDMA was not enabled\n")
    assert fake.wait_for("rdma.disable").arguments == {"dry_run": True}


def test_a_pair(ctl, coordinator):
    fake = coordinator(rdma_test=reply(PAIR))
    done = ctl("rdma", "test", "studio", "mini", "--endpoint", fake.endpoint)
    text = "studio and mini by jaccl: 40us there and back, 4.2 GB/s\n"
    assert (done.returncode, done.stdout) == (0, text)
    assert "few starts between reboots" in done.stderr
    asked = {"a": "studio", "b": "mini", "dry_run": False}
    assert fake.wait_for("rdma.test").arguments == asked


def test_a_pair_that_cannot(ctl, coordinator):
    why = "mini: start: RTR failed with errno 22"
    fake = coordinator(rdma_test=reply(PAIR | {"why": why}))
    done = ctl("rdma", "test", "studio", "mini", "--endpoint", fake.endpoint)
    assert done.returncode == 1
    assert f"no RDMA: {why}" in done.stdout
    fake = coordinator(rdma_test=failure(5, "another test is under way", "one at a time", "wait"))
    done = ctl("rdma", "test", "studio", "mini", "--endpoint", fake.endpoint)
    assert done.returncode == 5
