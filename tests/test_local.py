"""The local cluster: planned in this process, started with a stand-in for shardd."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from daemon import local
from daemon.config import load
from daemon.local import LocalError, even, layer_count, plan
from daemon.local import node as local_node

STAND_IN = Path(__file__).parent / "ctl" / "fake_shardd.py"


@pytest.fixture(autouse=True)
def nothing_left(tmp_path):
    """A test that fails must not leave processes either."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--config" in words and any(str(tmp_path) in word for word in words):
            process.kill()


@pytest.fixture
def model(tmp_path):
    """A model's folder, as far as a plan looks."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    return folder


@pytest.fixture
def stand_in(monkeypatch):
    """Makes shardd a stand-in with that behaviour."""

    def choose(mode: str) -> None:
        monkeypatch.setattr(local_node, "SHARDD", (sys.executable, str(STAND_IN), mode))

    return choose


def logged(cluster, text):
    """A readiness check: every node has written that."""
    return lambda: all(node.log.exists() and text in node.log.read_text() for node in cluster.nodes)


@pytest.mark.parametrize(
    ("arguments", "nodes", "split"),
    [
        ({}, 2, None),
        ({"nodes": 3}, 3, None),
        ({"split": (5, 2, 1)}, 3, (5, 2, 1)),
        ({"nodes": 8}, 8, None),
    ],
)
def test_a_plan_leaves_the_split_to_the_coordinator(tmp_path, model, arguments, nodes, split):
    made = plan(tmp_path / "state", model=str(model), **arguments)
    assert made.split == split
    assert len(made.nodes) == nodes
    assert (made.model, made.folder) == ("tiny-model", model)
    assert not (tmp_path / "state").exists()  # a plan touches nothing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"split": (5, 2)}, "its sum is 7, and tiny-model has 8 layers; write for example"),
        ({"split": (5, 2, 1), "nodes": 2}, "3 numbers for 2 nodes"),
        ({"split": (8, 0)}, "at least one layer"),
        ({"nodes": 9}, "8 layers, and every stage needs one"),
        ({"nodes": 0}, "1 to 64"),
    ],
)
def test_a_wrong_plan_says_why(tmp_path, model, arguments, said):
    with pytest.raises(LocalError) as caught:
        plan(tmp_path / "state", model=str(model), **arguments)
    assert said in str(caught.value)
    assert caught.value.usage


def test_models_by_name(tmp_path, model):
    assert plan(tmp_path, model="mine", models={"mine": model}).folder == model
    assert plan(tmp_path).model == "embedded"
    with pytest.raises(LocalError) as caught:
        plan(tmp_path, model="nope", models={"mine": model})
    assert "embedded, embedded-draft, mine" in str(caught.value)
    with pytest.raises(LocalError, match=r"no config\.json"):
        plan(tmp_path, model=str(tmp_path))


def test_layers_of_a_nested_configuration(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"text_config": {"num_hidden_layers": 5}}))
    assert layer_count(tmp_path) == 5
    file.write_text("{}")
    assert layer_count(tmp_path) is None
    file.write_text("{")
    with pytest.raises(LocalError):
        layer_count(tmp_path)


@pytest.mark.parametrize(("layers", "count"), [(8, 3), (7, 7), (64, 5)])
def test_even_splits_differ_by_one_at_most(layers, count):
    parts = even(layers, count)
    assert sum(parts) == layers
    assert max(parts) - min(parts) <= 1


def test_the_configurations_are_valid(tmp_path, model):
    made = plan(tmp_path / "a folder", model=str(model), split=(5, 2, 1), port=None)
    made.prepare()
    for index, node in enumerate(made.nodes):
        config = load(node.config)
        assert config.node.name == node.name == f"n{index + 1}"
        assert config.coordinator.address == made.endpoint
        assert config.coordinator.run == (index == 0)
        assert config.models["tiny-model"] == model
    assert load(made.nodes[0].config).coordinator.split == (5, 2, 1)
    assert yaml.safe_load(made.nodes[1].config.read_text())["coordinator"].get("model") is None


def test_a_port_in_use_is_said(tmp_path, model):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LocalError) as caught:
        plan(tmp_path, model=str(model), port=taken.getsockname()[1])
    assert "not free" in caught.value.what


def test_start_find_stop(tmp_path, model, stand_in):
    stand_in("ok")
    made = plan(tmp_path / "state", model=str(model), nodes=3)
    cluster = made.start(logged(made, "starts"), 60)
    try:
        found = local.find(tmp_path / "state")
        assert found == cluster
        assert [node.name for node in found.running()] == ["n1", "n2", "n3"]
        assert all(os.getsid(node.pid) == node.pid for node in found.nodes)
        with pytest.raises(LocalError, match="runs already"):
            plan(tmp_path / "state", model=str(model)).start(lambda: True, 1)
    finally:
        ended = cluster.stop()
    assert ended == ["n1", "n2", "n3"]
    assert found.running() == []
    assert local.find(tmp_path / "state") is None
    assert all(node.log.exists() for node in cluster.nodes)
    assert not any(psutil.pid_exists(node.pid) for node in cluster.nodes)


def test_one_that_fails_ends_all_and_is_quoted(tmp_path, model, stand_in):
    stand_in("fail:n2")
    made = plan(tmp_path / "state", model=str(model), nodes=3)
    made.state.mkdir()
    (made.state / "n2.log").write_text("of an earlier run\n")
    with pytest.raises(LocalError) as caught:
        made.start(lambda: False, 60)
    assert "n2 ended" in caught.value.what
    assert caught.value.why == "exit status 3"
    assert caught.value.log == ("n2 cannot go on",)
    assert [child.poll() for child in made.started].count(None) == 0
    assert local.find(made.state) is None


def test_not_ready_in_time_ends_all(tmp_path, model, stand_in):
    stand_in("ok")
    made = plan(tmp_path / "state", model=str(model))
    with pytest.raises(LocalError, match="not ready in 0"):
        made.start(lambda: False, 0.0)
    assert all(child.poll() is not None for child in made.started)


def test_an_interrupt_while_waiting_ends_all(tmp_path, model, stand_in):
    stand_in("ok")
    made = plan(tmp_path / "state", model=str(model))

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.start(interrupted, 60)
    assert len(made.started) == 2
    assert all(child.poll() is not None for child in made.started)


@pytest.mark.parametrize("mode", ["stubborn", "orphan"])
def test_what_ignores_sigterm_is_killed(tmp_path, model, stand_in, mode):
    stand_in(mode)
    made = plan(tmp_path / "state", model=str(model), nodes=1)
    cluster = made.start(logged(made, "child" if mode == "orphan" else "starts"), 60)
    family = psutil.Process(cluster.nodes[0].pid).children(recursive=True)
    assert len(family) == (mode == "orphan")
    cluster.stop(0.5 if mode == "stubborn" else 15)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert cluster.running() == []


def test_orphans_of_a_killed_node_are_found(tmp_path, model, stand_in):
    stand_in("orphan")
    made = plan(tmp_path / "state", model=str(model), nodes=1)
    cluster = made.start(logged(made, "child"), 60)
    [orphan] = psutil.Process(cluster.nodes[0].pid).children(recursive=True)
    os.kill(cluster.nodes[0].pid, signal.SIGKILL)
    cluster.started[0].wait()
    assert orphan.is_running()
    assert cluster.stop() == []
    psutil.wait_procs([orphan], timeout=10)
    assert not orphan.is_running()


def test_a_foreign_process_is_never_ended(tmp_path, model, stand_in):
    """The pid was given to somebody else since: another start time, or another command line."""
    stand_in("ok")
    made = plan(tmp_path / "state", model=str(model), nodes=1)
    cluster = made.start(logged(made, "starts"), 60)
    node = cluster.nodes[0]
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as foreign:
        begun = psutil.Process(foreign.pid).create_time()
        for claim in (
            replace(node, pid=foreign.pid, started=begun),
            replace(node, started=node.started - 100),
            replace(node, pid=os.getpid()),
        ):
            stale = replace(cluster, nodes=(claim,), started=[])
            assert not stale.coordinator_runs()
            assert stale.stop(0.1) == []
            stale.kill()
        assert foreign.poll() is None
        assert cluster.running() == [node]
        foreign.stdin.close()
    cluster.stop()


def test_two_cannot_start_at_once(tmp_path, model, stand_in):
    stand_in("ok")
    made = plan(tmp_path / "state", model=str(model))
    with made.lock(), pytest.raises(LocalError, match="being started or ended"):
        made.start(lambda: True, 1)
    assert made.started == []


def test_variables_for_another_daemon_do_not_reach_the_nodes(tmp_path, model, monkeypatch):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import os\n"
        "print([n for n in os.environ if n.startswith('SHARDBUS_')], flush=True)\n"
        "import daemon, signal; signal.pause()"
    )
    monkeypatch.setattr(local_node, "SHARDD", (sys.executable, str(probe)))
    monkeypatch.setenv("SHARDBUS_NODE_NAME", "other")
    monkeypatch.chdir(tmp_path)
    made = plan(tmp_path / "state", model=str(model), nodes=1)
    made.start(logged(made, "[]\n"), 60).stop()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes": []}', '{"nodes": [{}]}'])
def test_a_damaged_state_file_is_said(tmp_path, text):
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(LocalError, match="cannot be understood"):
        local.find(tmp_path)


def test_where_the_state_lives(tmp_path, monkeypatch):
    monkeypatch.delenv("SHARDBUS_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert local.default_state() == tmp_path / "shardbus" / "local"
    monkeypatch.setenv("SHARDBUS_STATE", str(tmp_path / "other"))
    assert local.default_state() == tmp_path / "other"
