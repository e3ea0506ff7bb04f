"""The ports of all nodes: asked at once, and told also when some are silent, gone or lie."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon import messages as msg
from daemon.coordinator import ports
from daemon.thunderbolt import report, run
from tests.coordinator.nodes import Nodes
from tests.thunderbolt.recordings import outputs, recorded


@pytest.fixture
def of(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, "a", "b", "c")


def asked(of: Nodes) -> dict[str, msg.PortsQuery]:
    return {node: m for node, m in of.to_nodes if isinstance(m, msg.PortsQuery)}


def tells(of: Nodes, node: str, machine: str) -> None:
    """The node says what was recorded of that machine."""
    query = asked(of)[node]
    said = report.outputs(outputs(machine), query.salt) if query.salt else {}
    facts = recorded(machine).to_wire()
    of.clients.queries.report(msg.PortsReport(query.query, node, facts, said))


def time_is_up(of: Nodes) -> None:
    of.clients.queries.tick(time.monotonic() + 2 * run.SECONDS + ports.MARGIN_SECONDS)


def verdicts(data: dict[str, Any], node: str) -> list[str]:
    (one,) = [one for one in data["nodes"] if one["node"] == node]
    return [port["verdict"] for port in one["ports"]]


def test_all_are_asked_at_once_and_told_together(of: Nodes) -> None:
    of.ask(of.clients.ports.status)
    assert set(asked(of)) == {"a", "b", "c"}
    for node, machine in (("b", "mini-b"), ("a", "mini-a")):
        tells(of, node, machine)
    assert of.replies() == []
    tells(of, "c", "mini-tb4")
    (data,) = of.replies()
    assert verdicts(data, "a") == ["link-down", "ready", "link-down"]
    assert verdicts(data, "c") == ["unsupported-hw", "unsupported-hw"]
    assert data["silent"] == []
    assert data["cables"] == [
        {
            "nodes": ["a", "b"],
            "receptacles": ["2", "2"],
            "devices": ["rdma_en3", "rdma_en3"],
            "speed": 80,
            "ready": True,
        }
    ]
    peers = [port["peer"] for port in data["nodes"][0]["ports"]]
    assert peers == [None, "b", None]


def test_the_silent_are_named_when_the_time_is_up(of: Nodes) -> None:
    of.ask(of.clients.ports.status)
    tells(of, "a", "mini-a")
    assert of.replies() == []
    time_is_up(of)
    (data,) = of.replies()
    assert data["silent"] == ["b", "c"]
    assert verdicts(data, "a")[1] == "ready"
    assert data["jaccl"]["missing"] == ["b has not answered", "c has not answered"]


def test_who_is_not_connected_is_not_waited_for(of: Nodes) -> None:
    of.gone = {"b", "c"}
    of.ask(of.clients.ports.status)
    tells(of, "a", "mini-a")
    (data,) = of.replies()
    assert data["silent"] == ["b", "c"]


def test_nobody_is_connected(of: Nodes) -> None:
    of.gone = {"a", "b", "c"}
    of.ask(of.clients.ports.status)
    (data,) = of.replies()
    assert data["silent"] == ["a", "b", "c"]


def test_what_is_no_machine_counts_as_no_answer(of: Nodes) -> None:
    of.ask(of.clients.ports.status)
    tells(of, "a", "mini-a")
    tells(of, "b", "mini-b")
    facts = {**recorded("mini-b").to_wire(), "ports": [{"interface": "en2; reboot"}]}
    of.clients.queries.report(msg.PortsReport(asked(of)["c"].query, "c", facts, {}))
    (data,) = of.replies()
    assert data["silent"] == ["c"]


def test_one_node_is_judged_by_what_is_at_its_other_ends(of: Nodes) -> None:
    of.ask(of.clients.ports.status, node="b")
    assert set(asked(of)) == {"a", "b", "c"}
    tells(of, "a", "macbook-off")
    tells(of, "b", "macbook-on")
    time_is_up(of)
    (data,) = of.replies()
    assert [one["node"] for one in data["nodes"]] == ["b"]
    assert data["silent"] == []
    assert verdicts(data, "b")[1] == "peer-disabled"
    assert data["nodes"][0]["ports"][1]["reason"].startswith("a: RDMA is off")


def test_an_unknown_node_is_the_clients_fault(of: Nodes) -> None:
    request = msg.Request(msg.PROTOCOL, 1, "rdma.status", {"node": "x"})
    of.clients.request(b"client", request)
    (failure,) = [heard for heard in of.heard if isinstance(heard, msg.Failure)]
    assert (failure.code, "x" in failure.what) == (2, True)
    assert asked(of) == {}


def test_what_a_pipeline_would_be_given(of: Nodes) -> None:
    of.serve_toy(4, 4)
    of.ask(of.clients.ports.status)
    tells(of, "a", "mini-a")
    tells(of, "b", "mini-b")
    time_is_up(of)
    of_group = of.replies()[-1]["jaccl"]
    assert of_group["order"] == ["a", "b"]
    assert (of_group["shape"], of_group["coordinator"]) == ("mesh", "169.254.10.1")
    assert of_group["devices"] == [[[], ["rdma_en3"]], [["rdma_en3"], []]]


def test_builds_that_differ_are_a_warning(of: Nodes) -> None:
    of.ask(of.clients.ports.status)
    tells(of, "a", "mini-a")
    tells(of, "b", "studio")
    time_is_up(of)
    assert of.replies()[0]["warnings"] == [
        "macOS builds differ: 25F80 on a, 25E241 on b; RDMA wants the same one everywhere"
    ]


def test_recovery_is_for_those_who_need_it(of: Nodes) -> None:
    of.ask(of.clients.ports.status)
    for node, machine in (("a", "macbook-off"), ("b", "macbook-on"), ("c", "mini-tb4")):
        tells(of, node, machine)
    assert of.replies()[0]["recovery"] == ["a"]


def test_a_report_is_fresh_and_redacted(of: Nodes) -> None:
    of.ask(of.clients.ports.report)
    queries = asked(of)
    assert {query.fresh for query in queries.values()} == {True}
    assert len({query.salt for query in queries.values()}) == 1
    assert queries["a"].salt
    tells(of, "a", "mini-a")
    tells(of, "b", "mini-b")
    time_is_up(of)
    (document,) = of.replies()
    text = json.dumps(document)
    assert queries["a"].salt not in text
    for secret in ("A0000002", "B0000002", "11111111-AAAA", "36:00:00", "10.0.0.1"):
        assert secret not in text
    assert document["silent"] == ["c"]
    assert set(document["tools"]) == {"a", "b"}
    assert set(document["versions"]) == {"a", "b", "c"}


def test_others_can_ask_too(of: Nodes) -> None:
    found: list[tuple[Any, list[str]]] = []
    of.clients.ports.ask(lambda *told: found.append(told), {"a", "b"}, fresh=True)
    assert set(asked(of)) == {"a", "b"}
    tells(of, "a", "mini-a")
    time_is_up(of)
    assert found == [({"a": recorded("mini-a")}, ["b"])]


def test_reports_to_no_question_are_dropped(of: Nodes) -> None:
    of.ask(of.clients.ports.status)
    wrong = replace(asked(of)["a"], query=99)
    facts = recorded("mini-a").to_wire()
    for query, node in ((wrong.query, "a"), (asked(of)["a"].query, "stranger")):
        of.clients.queries.report(msg.PortsReport(query, node, facts, {}))
    assert of.replies() == []
