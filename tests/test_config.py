"""The configuration: what is accepted, and the one line that everything else gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from daemon.config import SETTINGS, ConfigError, find_file, load

FULL = """\
node:
  name: studio
  data_address: tcp://10.0.0.2:0
  state_dir: state
  max_memory: 48GB
  kv_memory: 12GB
  draft: tiny
coordinator:
  address: tcp://10.0.0.2:5570
  run: true
  cluster: home
  model: tiny
  split: [5, 3]
  nodes: [studio, mini]
models:
  tiny: models/tiny
  qwen/big: /big
security:
  plain_networks: ["10.0.0.0/24", "fe80::/10"]
rdma:
  backend: off
  address: tcp://10.0.0.2:7000
  group_starts: 5
timeouts:
  heartbeat_s: 0.25
  drain_s: 10
log:
  level: debug
  format: json
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("SHARDBUS_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("written", ["off", "'off'"])
def test_off_is_a_choice_though_yaml_takes_it_for_false(tmp_path: Path, written: str) -> None:
    text = f"coordinator: {{speculation: {written}, rebalance: {written}}}\n"
    config = load(write(tmp_path, f"{text}rdma: {{backend: {written}}}\n"))
    assert config.rdma.backend == "off"
    assert (config.coordinator.speculation, config.coordinator.rebalance) == ("off", "off")


def test_a_full_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, FULL))
    assert config.node.name == "studio"
    assert config.node.state_dir == tmp_path / "state"
    assert config.node.max_memory == 48_000_000_000
    assert config.node.kv_memory == 12_000_000_000
    assert config.coordinator.split == (5, 3)
    assert dict(config.models) == {"tiny": tmp_path / "models/tiny", "qwen/big": Path("/big")}
    assert config.rdma.backend == "off"
    assert config.rdma.address == "tcp://10.0.0.2:7000"
    assert config.rdma.group_starts == 5
    assert config.timeouts.heartbeat_s == 0.25
    assert config.timeouts.dead_after_s == 2.5
    assert config.origin("node.name").endswith("c.yaml:2")
    assert config.origin("timeouts.dead_after_s") == "default"
    mapping = config.to_mapping()
    assert mapping["security"]["plain_networks"] == ["10.0.0.0/24", "fe80::/10"]
    assert mapping["log"] == {"level": "debug", "format": "json"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("24GiB", 24 << 30),
        ("1.5 TB", 1_500_000_000_000),
        ("'1048576'", 1 << 20),
        ("9999999", 9999999),
    ],
)
def test_sizes(tmp_path: Path, text: str, count: int) -> None:
    assert load(write(tmp_path, f"node: {{max_memory: {text}}}")).node.max_memory == count


def test_what_it_says_can_be_read_back(tmp_path: Path) -> None:
    """A daemon writes its configuration down for its children."""
    config = load(write(tmp_path, FULL), {"node.name": "12", "log.level": "error"})
    again = load(write(tmp_path, yaml.safe_dump(config.to_mapping())))
    assert config.differences(again) == ()


def test_defaults_are_valid_and_local(tmp_path: Path) -> None:
    config = load(write(tmp_path, "# nothing\nnode:\nmodels:\n"))
    assert config.node.data_address == "tcp://127.0.0.1:0"
    assert config.coordinator.address == "tcp://127.0.0.1:5570"
    assert not config.coordinator.run
    assert config.differences(load(write(tmp_path, "log: {level: debug}"))) == ("log.level",)
    assert all(config.origin(setting.path) == "default" for setting in SETTINGS)


# What is written, the line it must name, and words its one line must have.
REFUSED = [
    ("nod:\n  name: a\n", 1, "did you mean 'node'?"),
    ("node:\n  nmae: a\n", 2, "did you mean 'node.name'?"),
    ("node:\n  heartbeat_s: 1\n", 2, "did you mean 'timeouts.heartbeat_s'?"),
    ("log:\n  zzz: 1\n", 2, "known are log.level, log.format"),
    ("timeouts:\n  zzz: 1\n", 2, "known are timeouts.heartbeat_s,"),
    ("node.name: a\n", 1, "unknown key 'node.name'"),
    ("node:\n  name: a\n  name: b\n", 3, "'name' twice"),
    ("log: {level: info}\nlog: {level: info}\n", 2, "'log' twice"),
    ("models:\n  a: /x\n  a: /y\n", 3, "'a' twice"),
    ("node:\n  name: 12\n", 2, "'12', a number; it must be text; write it in quotes"),
    ("node:\n  name: yes\n", 2, "a boolean"),
    ("node:\n  name:\n", 2, "has no value"),
    ("node:\n  name: [a]\n", 2, "is a list"),
    ("node:\n  name: a b\n", 2, "a name has"),
    ("node:\n  name: !!python/object:os.system x\n", 2, "node.name is"),
    ("node: [1]\n", 1, "must be a mapping"),
    ("- a\n", 1, "the file is a list"),
    ("? [a]\n: b\n", 1, "must be text"),
    ("node:\n  max_memory: 48\n", 2, "give it a unit"),
    ("node:\n  max_memory: 48.5\n", 2, "a number"),
    ("node:\n  max_memory: 48 G\n", 2, "48GB or 24GiB"),
    ("node:\n  max_memory: 48gigs\n", 2, "48GB or 24GiB"),
    ("node:\n  max_memory: 0GB\n", 2, "between 1MiB"),
    ("node:\n  data_address: 127.0.0.1:1\n", 2, "tcp://HOST:PORT"),
    ("node:\n  data_address: tcp://*:1\n", 2, "IP address"),
    ("node:\n  data_address: tcp://0.0.0.0:1\n", 2, "never all of them"),
    ("node:\n  data_address: tcp://studio.local:1\n", 2, "IP address"),
    ("node:\n  data_address: tcp://127.0.0.1:70000\n", 2, "65535"),
    ("node:\n  data_address: tcp://10.0.0.2:0\n", 2, "add it, for example '10.0.0.0/24'"),
    ("node:\n  data_address: tcp://8.8.8.8:0\n", 2, "use an address in a private network"),
    ("coordinator:\n  address: tcp://127.0.0.1:0\n", 2, "every node must know"),
    ("coordinator:\n  address: tcp://[fd00::2]:5570\n", 2, "'fd00::/64'"),
    ("coordinator:\n  run: maybe\n", 2, "true or false"),
    ("coordinator:\n  split: [5, 0]\n", 2, "at least one layer"),
    ("coordinator:\n  split: []\n", 2, "at least one layer"),
    ("coordinator:\n  split: [5, 1.5]\n", 2, "a whole number"),
    ("coordinator:\n  split: 5\n", 2, "write it as [a, b]"),
    ("coordinator:\n  split: [0x10]\n", 2, "decimal"),
    ("coordinator:\n  nodes: [a, b, a]\n", 2, "'a' twice"),
    ("coordinator:\n  nodes: [a]\n  split: [1, 2]\n", 3, "2 numbers for 1 nodes"),
    ("security:\n  plain_networks: [10.0.0.2/24]\n", 2, "did you mean '10.0.0.0/24'?"),
    ("security:\n  plain_networks: [10.0.0.0]\n", 2, "did you mean '10.0.0.0/32'?"),
    ("security:\n  plain_networks: [lan]\n", 2, "ADDRESS/BITS"),
    ("security:\n  plain_networks:\n    - 0.0.0.0/0\n", 3, "not for public networks"),
    ("security:\n  plain_networks: [8.8.8.0/24]\n", 2, "not for public networks"),
    ("rdma:\n  backend: mpi\n", 2, "one of auto, off, jaccl, ring, nccl"),
    ("rdma:\n  backend: no\n", 2, "is 'no'; it must be one of auto, off, jaccl, ring, nccl"),
    ("rdma:\n  backend: 1\n", 2, "must be text"),
    ("rdma:\n  address: tcp://10.0.0.2:0\n", 2, "the groups of mlx are neither encrypted"),
    ("rdma:\n  address: tcp://[::1]:0\n", 2, "nothing but IPv4"),
    ("rdma:\n  watchdog_s: 0.1\n", 2, "between 0.2 and 60 seconds"),
    ("rdma:\n  start_s: 0\n", 2, "between 1 and 300 seconds"),
    ("rdma:\n  group_starts: 0\n", 2, "between 1 and 1000000"),
    ("timeouts:\n  heartbeat_s: 60\n", 2, "between 0.05 and 10 seconds"),
    ("timeouts:\n  heartbeat_s: .nan\n", 2, "a number"),
    ("timeouts:\n  send_s: '1'\n", 2, "'1', text; it must be a number"),
    ("timeouts:\n  dead_after_s: 0.5\n", 2, "at least 1"),
    ("log:\n  level: inof\n", 2, "did you mean 'info'?"),
    ("node:\n  name: 'a\n", 3, "not valid YAML"),
    ("node:\n\tname: a\n", 2, "not valid YAML"),
    ("node: {}\n---\nlog: {}\n", 2, "not valid YAML"),
    ("node:\n  name: \x07\n", 2, "not allowed"),
    ("models: &a\n  x: *a\n", 1, "must be text"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED)
def test_refused_in_one_line_with_its_place(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: "), message
    assert words in message
    assert "\n" not in message
    assert len(re.split("; ", message)) >= 3


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: the file cannot be read; no such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read; is a directory"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"c\.yaml:2: the file is not text; byte 0xff"):
        load(write(tmp_path, b"node:\n  name: \xff\n"))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load(write(tmp_path, b"#" * (1 << 20) + b"\n"))
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(write(tmp_path, "[" * 5000))


def test_a_node_others_cannot_reach_is_refused(tmp_path: Path) -> None:
    text = (
        "security: {plain_networks: [10.0.0.0/24]}\ncoordinator: {address: 'tcp://10.0.0.2:5570'}"
    )
    with pytest.raises(ConfigError, match=r"node\.data_address is loopback, but coordinator") as e:
        load(write(tmp_path, text))
    assert e.value.where == str(tmp_path / "c.yaml")


def test_an_address_of_one_link(tmp_path: Path) -> None:
    """Thunderbolt gives link-local IPv6 addresses, which need their interface."""
    text = "node: {data_address: 'tcp://[fe80::1%en5]:0'}\nsecurity: {plain_networks: [fe80::/64]}"
    assert load(write(tmp_path, text)).node.data_address == "tcp://[fe80::1%en5]:0"


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "node: {name: file}\nlog: {level: warning}\n")
    monkeypatch.setenv("SHARDBUS_NODE_NAME", "12")  # text stays text
    monkeypatch.setenv("SHARDBUS_COORDINATOR_SPLIT", "5, 2,1")
    monkeypatch.setenv("SHARDBUS_MODELS", "a=/a,b=b")
    config = load(file, {"log.level": "error"})
    assert config.node.name == "12"
    assert config.coordinator.split == (5, 2, 1)
    assert dict(config.models) == {"a": Path("/a"), "b": tmp_path / "b"}
    assert config.log.level == "error"
    assert config.origin("node.name") == "env SHARDBUS_NODE_NAME"
    assert config.origin("log.level") == "flag"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("SHARDBUS_NODE_NMAE", "a", "environment: unknown key 'SHARDBUS_NODE_NMAE'"),
        ("SHARDBUS_LOG_LEVEL", "loud", "env SHARDBUS_LOG_LEVEL: log.level is 'loud'"),
        ("SHARDBUS_COORDINATOR_RUN", "2", "true or false"),
        ("SHARDBUS_COORDINATOR_SPLIT", "5,x", "a whole number"),
        ("SHARDBUS_MODELS", "a", "name=value"),
        ("SHARDBUS_TIMEOUTS_SEND_S", "inf", "a number"),
        ("SHARDBUS_CONFIG", "/absent.yaml", "/absent.yaml: the file cannot be read"),
    ],
)
def test_the_environment_is_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        load()


def test_unknown_flag() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'log\.level'\?"):
        load(None, {"log.levle": "info"})


def test_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "xdg/shardbus/shardbus.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("node: {name: xdg}")
    assert find_file() == file
    assert load().node.name == "xdg"
    other = write(tmp_path, "node: {name: named}")
    monkeypatch.setenv("SHARDBUS_CONFIG", str(other))
    assert load().node.name == "named"
    assert load(file).node.name == "xdg"


def test_state_directory_of_systemd_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/shardbus:/other")
    assert load().node.state_dir == Path("/var/lib/shardbus")


def test_it_imports_neither_mlx_nor_pydantic() -> None:
    code = "import sys, daemon.config; print(sorted(m for m in sys.modules if '.' not in m))"
    run = [sys.executable, "-c", code]
    root = Path(__file__).parents[1]
    loaded = subprocess.run(run, cwd=root, capture_output=True, text=True, check=True).stdout
    assert not re.search("'(mlx|mlx_lm|numpy|pydantic|zmq|asyncio)'", loaded)
