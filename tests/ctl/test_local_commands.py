"""up, down, demo with a stand-in for shardd; where the endpoint comes from; the configuration."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from ctl.commands.local import DEMO_PROMPT
from daemon import local
from tests.ctl.fake import WAIT_SECONDS, environment, reply, running, shardctl
from tests.ctl.samples import STATUS

STAND_IN = Path(__file__).parent / "fake_shardd.py"


def prelude(mode):
    return (
        "import sys\nfrom daemon.local import node\n"
        f"node.SHARDD = (sys.executable, {str(STAND_IN)!r}, {mode!r})"
    )


def left(folder):
    """Processes that were started with a configuration in that folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(str(folder) in word for word in words) and "--config" in words:
            found.append(process.pid)
    return found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path):
    """A test that fails must not leave processes either."""
    yield
    for pid in left(tmp_path):
        psutil.Process(pid).kill()


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    return folder


def test_up_status_down(tmp_path, model, ctl):
    variables = {"XDG_STATE_HOME": str(tmp_path)}
    words = ("up", "--split", "5,2,1", "--model", str(model))
    done = shardctl(*words, prelude=prelude("ok"), **variables)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(
            "started 3 nodes with tiny, layers 5,2,1, at tcp://127.0.0.1:"
        )
        found = ctl("status", "--json", **variables)
        assert json.loads(found.stdout)["cluster"] == "local"
        again = ctl(*words, **variables)
        assert again.returncode == 1
        assert "runs already" in again.stderr
        dry = ctl("down", "--dry-run", **variables)
        assert dry.stdout == "would end n1, n2, n3\n"
    finally:
        ended = ctl("down", "--json", **variables)
    assert json.loads(ended.stdout)["ended"] == ["n1", "n2", "n3"]
    assert left(tmp_path) == []
    assert ctl("down", **variables).stdout == "no local cluster was started here\n"


def test_a_cluster_elsewhere_is_found_by_variable(tmp_path, model, ctl):
    state = tmp_path / "elsewhere"
    words = ("up", "--nodes", "1", "--model", str(model), "--state", str(state), "--no-wait")
    done = shardctl(*words, prelude=prelude("ok"))
    try:
        assert f"SHARDBUS_STATE={state}" in done.stderr
        endpoint = local.find(state).endpoint
        assert endpoint in done.stdout
        # It may not listen yet; which endpoint was chosen shows in either case.
        seen = ctl("status", SHARDBUS_STATE=str(state))
        assert seen.returncode == 0 or f"the local cluster in {state}" in seen.stderr
    finally:
        ctl("down", "--state", str(state))
    assert left(tmp_path) == []


def test_a_node_that_fails_takes_all_down_and_is_quoted(tmp_path, model):
    words = ("up", "--nodes", "2", "--model", str(model))
    done = shardctl(*words, prelude=prelude("fail:n2"), XDG_STATE_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    quoted, error = done.stderr.splitlines()
    assert quoted == "  | n2 cannot go on"
    assert error.startswith("error: node n2 ended while it was started: exit status 3; see ")
    assert left(tmp_path) == []


def test_ctrl_c_while_starting_leaves_nothing(tmp_path, model):
    folder = tmp_path / "shardbus" / "local"
    words = ("up", "--nodes", "2", "--model", str(model))
    variables = environment(XDG_STATE_HOME=str(tmp_path))
    with running(*words, prelude=prelude("loading"), env=variables) as process:
        until(lambda: len(left(folder)) == 2 and (folder / "cluster.json").exists(), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
    assert left(tmp_path) == []
    assert not (folder / "cluster.json").exists()


def test_ctrl_c_just_when_a_node_is_started_leaves_nothing(tmp_path, model):
    """The signal comes when the process is there, and whoever starts it does not know it yet."""
    interrupt = """
import signal, subprocess
from daemon.local import node
class Interrupted(subprocess.Popen):
    def __init__(self, words, **options):
        super().__init__(words, **options)
        if "n2.yaml" in words[-1]:
            signal.raise_signal(signal.SIGINT)
node.subprocess.Popen = Interrupted
"""
    words = ("up", "--nodes", "2", "--model", str(model))
    done = shardctl(*words, prelude=prelude("loading") + interrupt, XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 130
    assert left(tmp_path) == []
    assert not (tmp_path / "shardbus" / "local" / "cluster.json").exists()


def until(condition, process):
    """Until it holds, as long as the process lives."""
    while not condition():
        assert process.poll() is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--split", "5,2"), 2, "its sum is 7, and tiny has 8 layers"),
        (("--split", "five"), 2, "wrong split 'five'"),
        (("--nodes", "9"), 2, "every stage needs one"),
        (("--model", "nope"), 2, "unknown model 'nope'"),
    ],
)
def test_wrong_plans(tmp_path, model, ctl, words, code, said):
    done = ctl("up", "--model", str(model), *words, XDG_STATE_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dry_run_starts_nothing(tmp_path, model, ctl):
    done = ctl("up", "--dry-run", "--model", str(model), "--json", XDG_STATE_HOME=str(tmp_path))
    document = json.loads(done.stdout)
    assert (document["schema"], document["dry_run"], document["split"]) == (1, True, None)
    assert not (tmp_path / "shardbus").exists()


@pytest.mark.parametrize("stdin", [b"piped", b"", None])
def test_demo(tmp_path, stdin):
    prompt = "piped" if stdin else DEMO_PROMPT
    done = shardctl("demo", stdin=stdin, prelude=prelude("ok"), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"after {prompt}\n"
    assert "cluster local" in done.stderr
    assert "output" in done.stderr
    assert left(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_demo_does_not_wait_for_a_writer_who_says_nothing(tmp_path):
    reading, writing = os.pipe()
    try:
        with running(
            "demo",
            prelude=prelude("ok"),
            stdin=reading,
            env=environment(TMPDIR=str(tmp_path)),
        ) as process:
            assert process.wait(WAIT_SECONDS * 2) == 0
            assert process.stdout.read() == f"after {DEMO_PROMPT}\n".encode()
    finally:
        os.close(reading)
        os.close(writing)


def test_ctrl_c_in_the_demo_leaves_nothing(tmp_path):
    with running(
        "demo",
        prelude=prelude("ok"),
        stdin=open_text("hang"),
        env=environment(TMPDIR=str(tmp_path)),
    ) as process:
        assert process.stdout.read(10) == b"after hang"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
    assert left(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def open_text(text):
    """A pipe that holds the text and has ended."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return os.fdopen(reading, "rb")


def test_the_order_of_endpoints(tmp_path, coordinator, ctl):
    """flag > environment > configuration > local cluster > default."""
    names = ("flag", "variable", "configuration")
    fakes = [coordinator(status=reply({**STATUS, "cluster": name})) for name in names]
    flag, variable, configured = (fake.endpoint for fake in fakes)
    file = tmp_path / "shardbus" / "shardbus.yaml"
    file.parent.mkdir()
    file.write_text(f"coordinator:\n  address: {configured}\n")
    config = {"XDG_CONFIG_HOME": str(tmp_path)}

    def cluster(*words, **variables):
        return json.loads(ctl("status", "--json", *words, **variables).stdout)["cluster"]

    both = {"SHARDBUS_ENDPOINT": variable, **config}
    assert cluster("--endpoint", flag, **both) == "flag"
    assert cluster(**both) == "variable"
    assert cluster(**config) == "configuration"


def test_a_local_cluster_that_has_ended_is_said(tmp_path, model, ctl):
    state = tmp_path / "state"
    made = local.plan(state, model=str(model))
    state.mkdir()
    made.save()
    endpoint_free = ctl("nodes", "--timeout", "1s", SHARDBUS_STATE=str(state))
    assert f"the local cluster in {state} has ended, see {state}/n1.log" in endpoint_free.stderr


def test_config_check_and_show(tmp_path, ctl):
    good = tmp_path / "good.yaml"
    good.write_text("node:\n  name: studio\n")
    done = ctl("config", "check", str(good))
    assert (done.returncode, done.stdout) == (0, f"valid: {good}\n")
    shown = ctl("config", "show", str(good))
    assert any(
        line.split() == ["node.name", "studio", f"{good}:2"] for line in shown.stdout.splitlines()
    )
    document = json.loads(ctl("config", "show", str(good), "--json").stdout)
    assert document["settings"]["node"]["name"] == "studio"
    assert document["origins"]["node.name"] == f"{good}:2"


def test_a_wrong_configuration_names_file_and_line(tmp_path, ctl):
    bad = tmp_path / "bad.yaml"
    bad.write_text("node:\n  naem: studio\n")
    done = ctl("config", "check", str(bad))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {bad}:2: unknown key" in done.stderr
    assert "did you mean" in done.stderr
    assert done.stderr.count("\n") == 1
