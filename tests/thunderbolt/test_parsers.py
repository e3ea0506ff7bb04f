"""The tools' outputs, read: as recorded, and as something else."""

from __future__ import annotations

import json

import pytest

from daemon.thunderbolt import interfaces, profiler, system, verbs
from daemon.thunderbolt.facts import Port, UnreadableError
from tests.thunderbolt.recordings import said


def ports(machine: str) -> dict[str, Port]:
    return {port.receptacle: port for port in profiler.parse(said(machine)["system_profiler"])[1]}


def test_ports_and_who_is_at_the_other_end() -> None:
    name, found = profiler.parse(said("mini-a")["system_profiler"])
    assert name == "Mac mini"
    assert [port.receptacle for port in found] == ["1", "2", "3"]
    cabled = found[1]
    assert (cabled.connected, cabled.speed, cabled.most) == ("yes", 80, 0)
    assert cabled.peer_domain.startswith("B0000002")
    assert (cabled.peer_model, cabled.peer_offers_rdma) == ("Mac16,11", True)
    idle = found[0]
    assert (idle.connected, idle.speed, idle.most, idle.peer_domain) == ("no", 0, 120, "")


def test_a_peer_that_announces_no_rdma() -> None:
    assert not ports("macbook-on")["2"].peer_offers_rdma
    assert ports("macbook-off")["2"].peer_offers_rdma


def test_a_dock_or_disk_is_no_peer() -> None:
    assert ports("macbook-off")["3"].peer_domain == ""
    assert ports("macbook-off")["3"].connected == "yes"
    assert ports("studio")["4"].peer_domain == ""


def test_a_peer_behind_two_docks_is_found() -> None:
    assert ports("studio")["3"].peer_domain.startswith("A0000003")


def test_entries_without_a_receptacle_or_a_domain() -> None:
    _, found = profiler.parse(said("studio")["system_profiler"])
    assert len(found) == 7  # six receptacles, one entry without; the one without a domain is none
    assert [port.domain[:8] for port in found if not port.receptacle] == ["F0000009"]


@pytest.mark.parametrize("speed", ["Up to 80 Gb/s x1", "up to 120 Gb/s", "Up to 80Gb/s"])
def test_what_an_idle_port_can_do(speed: str) -> None:
    entry = {"domain_uuid_key": "x", "receptacle_1_tag": {"current_speed_key": speed}}
    port = profiler.parse(json.dumps({"SPThunderboltDataType": [entry]}))[1][0]
    assert port.most in (80, 120)
    assert port.speed == 0


@pytest.mark.parametrize("speed", ["fast", "", None, 80, "Gen T", ["80 Gb/s"]])
def test_an_unknown_speed_is_unknown(speed: object) -> None:
    entry = {"domain_uuid_key": "x", "receptacle_1_tag": {"current_speed_key": speed}}
    port = profiler.parse(json.dumps({"SPThunderboltDataType": [entry]}))[1][0]
    assert (port.speed, port.most, port.connected) == (0, 0, "")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"SPThunderboltDataType": {}}', "Thunderbolt:\n  No hardware"]
)
def test_what_is_not_the_profilers_output(text: str) -> None:
    with pytest.raises(UnreadableError):
        profiler.parse(text)


def test_lies_inside_of_json_do_no_harm() -> None:
    entries: list[object] = [
        7, None, {"domain_uuid_key": 3}, {"domain_uuid_key": "x", "_items": "none"},
        {"domain_uuid_key": "y", "_items": [3, {"_items": [None]}], "receptacle_1_tag": "1"},
        {"domain_uuid_key": "z", "_items": [{"domain_uuid_key": "w", "services_title": 5}]},
    ]  # fmt: skip
    _, found = profiler.parse(json.dumps({"SPThunderboltDataType": entries}))
    assert [(port.domain, port.peer_domain) for port in found] == [("X", ""), ("Y", ""), ("Z", "W")]


def test_a_chain_that_never_ends_is_left() -> None:
    deep: dict[str, object] = {"domain_uuid_key": "far"}
    for _ in range(100):
        deep = {"_items": [deep]}
    entry = {"domain_uuid_key": "x", "_items": [deep]}
    assert profiler.parse(json.dumps({"SPThunderboltDataType": [entry]}))[1][0].peer_domain == ""


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("mini-a", ["rdma_en2", "rdma_en3", "rdma_en4"]),
        ("macbook-on", ["rdma_en1", "rdma_en6", "rdma_en2"]),
        ("mini-tb4", []),
        ("linux-rxe", ["rxe0"]),
    ],
)
def test_devices(machine: str, names: list[str]) -> None:
    assert verbs.parse_devices(said(machine)["ibv_devices"]) == names


@pytest.mark.parametrize("text", ["", "\n", "dyld: symbol not found", "rdma_en2 1234"])
def test_nothing_said_is_not_no_devices(text: str) -> None:
    assert verbs.parse_devices(text) is None


def test_states_and_gids() -> None:
    found = verbs.parse_devinfo(said("mini-a")["ibv_devinfo"])
    assert {name: device.state for name, device in found.items()} == {
        "rdma_en2": "down",
        "rdma_en3": "active",
        "rdma_en4": "down",
    }
    assert found["rdma_en3"].gids == ("fe80::347c:94ff:fecd:45c3", "::ffff:169.254.10.1")
    assert found["rdma_en3"].transport == "Thunderbolt"
    rxe = verbs.parse_devinfo(said("linux-rxe")["ibv_devinfo"])["rxe0"]
    assert rxe.gids[1] == "::ffff:10.0.0.5"


def test_a_state_that_is_new_is_kept() -> None:
    found = verbs.parse_devinfo("hca_id: rdma_en2\n port: 1\n state: PORT_INIT (2)\n")
    assert found["rdma_en2"].state == "port_init"


def test_only_the_first_port_of_a_device_counts() -> None:
    first = "hca_id: mlx5_0\n port: 1\n state: PORT_DOWN (1)\n GID[ 0]: fe80::1\n"
    second = " port: 2\n state: PORT_ACTIVE (4)\n GID[ 0]: fe80::2\n"
    found = verbs.parse_devinfo(first + second + "hca_id: mlx5_1\n port: 1\n state: PORT_UP\n")
    assert (found["mlx5_0"].state, found["mlx5_0"].gids) == ("down", ("fe80::1",))
    assert found["mlx5_1"].state == "port_up"


def test_gids_keep_their_numbers() -> None:
    text = "hca_id: rdma_en2\n port: 1\n GID[  0]: fe80::1\n GID[  3]: ::FFFF:1.2.3.4, RoCE v2\n"
    assert verbs.parse_devinfo(text)["rdma_en2"].gids == ("fe80::1", "", "", "::ffff:1.2.3.4")
    assert verbs.parse_devinfo("hca_id: x\n GID[999999999]: fe80::1\n")["x"].gids == ()


def test_receptacles_and_interfaces() -> None:
    assert interfaces.parse_hardware_ports(said("macbook-on")["networksetup"]) == {
        "1": "en1",
        "2": "en6",
        "3": "en2",
    }
    assert interfaces.parse_hardware_ports(said("studio")["networksetup"])["1"] == "en2"
    assert "en10" not in interfaces.parse_hardware_ports(said("studio")["networksetup"]).values()


def test_addresses_and_bridges() -> None:
    found = interfaces.parse_ifconfig(said("mini-a")["ifconfig"])
    assert found["en3"].addresses == ["169.254.10.1/16"]
    assert found["bridge0"].members == ["en2", "en4"]
    assert found["en0"].addresses == ["10.0.0.11/24"]
    assert interfaces.parse_ifconfig("\tinet 1.2.3 netmask 0xzz\nen1: flags=1<UP>\n")["en1"]


@pytest.mark.parametrize(
    ("text", "flag"),
    [("enabled\n", "enabled"), (" Disabled ", "disabled"), ("not enabled", None), ("", None)],
)
def test_the_flag_is_the_bare_word(text: str, flag: str | None) -> None:
    assert system.parse_flag(text) == flag


def test_the_system_the_model_the_boot() -> None:
    assert system.parse_sw_vers(said("mini-a")["sw_vers"]) == ("26.5.1", "25F80")
    model, boot = system.parse_sysctl(said("mini-a")["sysctl"]) or ("", "")
    assert (model, boot[:8]) == ("Mac16,11", "11111111")
    assert system.parse_sysctl("sysctl: unknown oid 'kern.bootsessionuuid'\n") is None
    assert system.version_of("26.2") == (26, 2)
    assert system.version_of("26.2 beta") == ()
