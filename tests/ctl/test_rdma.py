"""rdma status: what people and programs are shown of ports, and of nodes that do not answer."""

import json

import pytest

from ctl.render.rdma import status_text
from ctl.render.table import Style
from daemon.coordinator.ports_view import group_view, ports_view
from tests.ctl.fake import failure, reply
from tests.thunderbolt.recordings import recorded

MACHINES = {"a": recorded("mini-a"), "b": recorded("mini-b"), "old": recorded("mini-tb4")}
HOPS = [
    {"from": "coordinator", "to": "a", "path": "zmq", "p50": 0.001},
    {"from": "a", "to": "b", "path": "zmq", "p50": 0.0003},
]
STATUS = {
    **ports_view(MACHINES, ["gone"]),
    "jaccl": group_view(["a", "b"], MACHINES),
    "hops": HOPS,
}


def test_a_line_for_each_port_and_each_silent_node(ctl, coordinator):
    fake = coordinator(rdma_status=reply(STATUS))
    done = ctl("rdma", "status", "--endpoint", fake.endpoint)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "NODE", "PORT", "IF", "DEVICE", "STATE", "SPEED", "PEER", "IPV4", "GID", "BRIDGE",
        "VERDICT", "REASON",
    ]  # fmt: skip
    (ready,) = [line for line in lines if " ready" in line and line.startswith("a ")]
    for word in ("2", "en3", "rdma_en3", "active", "80 Gb/s", "b", "169.254.10.1"):
        assert word in ready
    assert any(line.startswith("gone") and "no answer" in line for line in lines)
    assert "JACCL could connect a → b (mesh)" in lines
    assert "a → b: zmq, p50 300us" in lines
    assert not any("coordinator" in line for line in lines)
    assert fake.requests[0].arguments == {}


def test_one_node_and_json(ctl, coordinator):
    fake = coordinator(rdma_status=reply(STATUS))
    done = ctl("rdma", "status", "--node", "a", "-o", "json", "--endpoint", fake.endpoint)
    data = json.loads(done.stdout)
    assert data["schema"] == 1
    assert data["nodes"][0]["ports"][1]["verdict"] == "ready"
    assert data["silent"] == ["gone"]
    assert fake.requests[0].arguments == {"node": "a"}


def test_wide_has_the_machine_too(ctl, coordinator):
    fake = coordinator(rdma_status=reply(STATUS))
    done = ctl("rdma", "status", "-o", "wide", "--endpoint", fake.endpoint)
    for word in ("Mac16,11", "25F80", "enabled", "A0000002-", "11111111-", "169.254.10.1/16"):
        assert word in done.stdout


def test_jsonl_has_a_port_per_line(ctl, coordinator):
    fake = coordinator(rdma_status=reply(STATUS))
    done = ctl("rdma", "status", "-o", "jsonl", "--endpoint", fake.endpoint)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["node"] for row in rows] == ["a"] * 3 + ["b"] * 3 + ["old"] * 2 + ["gone"]


def test_no_advice_of_recovery_for_thunderbolt_4():
    text = status_text(STATUS, Style())
    assert "unsupported-hw" in text
    assert "ecovery" not in text


def test_what_is_to_be_done_is_said_once_per_node():
    data = ports_view({"off": recorded("macbook-off")}, [])
    text = status_text(data, Style())
    assert text.count("→ off: enable it in Recovery") == 1


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ({"enabled": False}, "RDMA is not enabled"),
        ({"enabled": True, "group": None, "why": "a is busy"}, "no group: a is busy"),
        (
            {
                "enabled": True,
                "group": {"group": 4, "backend": "jaccl", "nodes": ["a", "b"], "state": "standing"},
            },
            "group 4 by jaccl of a, b: standing",
        ),
    ],
)
def test_what_the_coordinator_makes_of_it(policy, line):
    assert line in status_text({**STATUS, "policy": policy}, Style())


def test_why_a_hop_is_not_rdma():
    hops = [{"from": "a", "to": "b", "why": "the probe failed"}]
    text = status_text({**STATUS, "policy": {"enabled": True, "hops": hops}}, Style())
    assert "a → b: zmq, p50 300us; not RDMA: the probe failed" in text


def test_what_a_group_lacks():
    data = {**ports_view(MACHINES, []), "jaccl": group_view(["a", "old"], MACHINES)}
    assert "JACCL lacks: old: Mac16,10 has no Thunderbolt 5" in status_text(data, Style())


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_it_fits_the_terminal(width):
    for line in status_text(STATUS, Style(width=width)).splitlines()[1:]:
        assert len(line) <= max(width, 45)


def test_nothing_of_a_node_steers_the_terminal():
    data = ports_view(MACHINES, ["\x1b[2Jgone"])
    data["nodes"][0]["ports"][0]["reason"] = "\x1b]0;title\x07"
    data["nodes"][0]["ports"][0]["todo"] = "\x1b[31m"
    assert "\x1b" not in status_text(data, Style())


def test_a_failure_is_told(ctl, coordinator):
    fake = coordinator(rdma_status=failure(2, "rdma.status: no node 'x'"))
    done = ctl("rdma", "status", "--node", "x", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (2, "")
