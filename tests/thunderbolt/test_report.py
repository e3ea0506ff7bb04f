"""A report tells enough, and nothing that is somebody's own."""

from __future__ import annotations

import json

import pytest

from daemon.coordinator.ports_view import ports_view
from daemon.thunderbolt import report
from daemon.thunderbolt.redact import Redactor
from daemon.thunderbolt.run import Output
from tests.thunderbolt.recordings import outputs, recorded

SALT = "00" * 16


@pytest.mark.parametrize(
    "secret",
    [
        "36:10:0f:92:66:40",
        "A0000001-0000-4000-8000-000000000001",
        "e0c5797d9c8fac05",
        "e0c5:797d:9c8f:ac05",
        "0x05AC897E0A474D02",
        "192.168.3.4",
        "10.0.0.11",
        "fe80::347c:94ff:fecd:45c3",
        "2600:8806:2907:8a00:14c8:a203:4bc2:9d99",
        "2001:db8::1",
    ],
)
@pytest.mark.parametrize("around", ["{}", "\tether {} \n", "inet {} netmask", '"{}"', "x={},y"])
def test_what_identifies_is_hidden(secret: str, around: str) -> None:
    text = around.format(secret)
    hidden = Redactor(SALT).text(text)
    assert secret not in hidden
    assert Redactor(SALT).text(text) == hidden
    assert Redactor("11" * 16).text(text) != hidden


@pytest.mark.parametrize(
    "text",
    [
        "::ffff:169.254.10.1", "netmask 0xffff0000", "255.255.255.252", "127.0.0.1", "::1",
        "12:34:56", "rdma_en3", "26.5.1", "25F80", "Mac16,11", "PORT_ACTIVE (4)", "80 Gb/s",
        "0xffffffffffffffff", "0x05ac", "GID[  1]:", "macOS", "prefixlen 64", "0:0:0:0:0:0",
    ],
)  # fmt: skip
def test_what_is_needed_stays(text: str) -> None:
    assert Redactor(SALT).text(text) == text


def test_a_gid_remains_an_ipv4_one() -> None:
    hidden = Redactor(SALT).text("GID[  1]:  ::ffff:10.0.0.5")
    assert "::ffff:ip4-" in hidden
    assert "10.0.0.5" not in hidden


def test_serial_numbers_and_names_of_computers() -> None:
    profile = {
        "SPThunderboltDataType": [
            {
                "_name": "thunderboltusb4_bus_1",
                "aapl_serial_number_key": "C02XXX",
                "domain_uuid_key": "A0000002-0000-4000-8000-000000000002",
                "receptacle_1_tag": {"receptacle_id_key": "2"},
                "_items": [
                    {"_name": "Anna's Mac", "domain_uuid_key": "B0000002-0000-4000-8000-00000002"}
                ],
            }
        ]
    }
    hidden = Redactor(SALT).profile(json.dumps(profile))
    assert "Anna" not in hidden
    assert "C02XXX" not in hidden
    assert json.loads(hidden)["SPThunderboltDataType"][0]["_name"] == "thunderboltusb4_bus_1"
    assert "C02X" not in Redactor(SALT).text("Serial Number (system): C02XXX\nmore")
    assert "more" in Redactor(SALT).text("Serial Number (system): C02XXX\nmore")


def test_what_is_no_profile_is_cut_short() -> None:
    assert len(Redactor(SALT).profile("strange " * 1000)) <= 2000
    assert Redactor(SALT).profile("[" * 100_000)


def test_both_ends_of_a_cable_have_the_same_name() -> None:
    said = {name: report.outputs(outputs(name), SALT) for name in ("mini-a", "mini-b")}
    ports = {
        name: {
            entry["domain_uuid_key"]: entry.get("_items", [{}])[0].get("domain_uuid_key")
            for entry in json.loads(one["system_profiler"])["SPThunderboltDataType"]
        }
        for name, one in said.items()
    }
    pairs = {(own, peer) for one in ports.values() for own, peer in one.items() if peer}
    assert len(pairs) == 2
    assert {(peer, own) for own, peer in pairs} == pairs


def test_the_document() -> None:
    machines = {"a": recorded("mini-a"), "b": recorded("mini-b")}
    said = {"a": report.outputs(outputs("mini-a"), SALT)}
    view = ports_view(machines, ["c"])
    whole = report.document({"a": {"mlx": "0.32"}}, machines, said, ["c"], view, SALT)
    text = json.dumps(whole)
    for secret in ("A0000002", "11111111-AAAA", "36:00", "02:00:00", "10.0.0.1", "347c"):
        assert secret not in text
    assert whole["machines"]["a"]["model"] == "Mac16,11"
    assert whole["status"]["nodes"][0]["ports"][1]["verdict"] == "ready"
    assert whole["probes"] == []
    assert "rdma_en3" in whole["tools"]["a"]["ibv_devinfo"]


def test_what_probes_found_is_told_with_advice() -> None:
    why = "[jaccl] Changing queue pair to RTR failed with errno 22 (10.0.0.5)"
    good = {"nodes": ["a", "b"], "round_trip_seconds": 4e-05, "why": ""}
    whole = report.with_probes({"probes": [], "silent": []}, [good, {"why": why}], SALT)
    first, second = whole["probes"]
    assert first == {**good, "advice": None}
    assert second["advice"]["row"] == "rtr-22"
    assert "10.0.0.5" not in second["why"]
    assert whole["silent"] == []


def test_a_tool_that_said_nothing() -> None:
    assert report.outputs({"rdma_ctl": Output("missing")}, SALT) == {"rdma_ctl": ""}
