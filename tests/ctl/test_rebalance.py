"""`shardctl rebalance` and `shardctl nodes`: what is asked, and what is printed."""

import json
import signal

import pytest

from ctl.progress import move_line
from ctl.render.status import status_text
from ctl.render.table import Style
from daemon.messages import Chunk, Reply
from tests.ctl.fake import failure, reply, running
from tests.ctl.samples import CHANGE, MOVED, MOVING, NODE, STATUS

TABLE = """\
NODE    NOW    NEW    MOVES   LOADS              MEMORY
studio  0-35   0-47     +12  3.6 GB  20.4 GB of 96.0 GB
mini    36-63  48-63    -12     0 B   7.7 GB of 22.0 GB

"""
PREDICTED = """\
predicted: one stream 30.1 → 34.4 tokens/s, stages full 40.2 → 66.2 tokens/s
loads 3.6 GB in about 4.20s, copies 300 MB of KV in about - (computed again: 41.00s), then one gap \
of about 29.1ms
3 links between nodes are not in use, their times assumed
"""
OUTCOME = """\
epoch 8: preparing 4.10s, copying 610ms, switching 31.0ms
3.6 GB of weights loaded, 310 MB of KV copied
143 tokens meanwhile; the longest gap of a client 62.0ms, the median of its gaps 30.1ms
"""


def moved(fake, peer, request):
    fake.say(peer, Chunk(request.request, {"measuring": ["air"]}))
    fake.say(peer, Chunk(request.request, {"moving": MOVING}))
    fake.say(peer, Reply(request.request, MOVED))


def begun(fake, peer, request):
    fake.say(peer, Chunk(request.request, {"moving": MOVING}))


def test_what_would_happen(ctl, coordinator):
    fake = coordinator(rebalance=reply(CHANGE))
    done = ctl("rebalance", "--auto", "--dry-run", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, TABLE + PREDICTED)
    assert fake.wait_for("rebalance").arguments == {
        "objective": "balanced", "context": None, "split": None, "pins": {}, "memory": {},
        "exclude": [], "nodes": [], "dry_run": True, "wait": True, "replay": False,
    }  # fmt: skip


def test_what_it_was_like(ctl, coordinator):
    fake = coordinator(rebalance=moved)
    done = ctl("rebalance", "--split", "48,16", "--nodes", "a,b", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, TABLE + OUTCOME)
    assert "measuring air" in done.stderr
    asked = fake.wait_for("rebalance").arguments
    assert (asked["split"], asked["nodes"], asked["dry_run"]) == ([48, 16], ["a", "b"], False)
    done = ctl("rebalance", "--auto", "-o", "jsonl", "--endpoint", fake.endpoint)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("type") for line in lines] == ["progress", None]
    assert lines[1]["longest_gap"] == MOVED["longest_gap"]


def test_computed_again_says_why(ctl, coordinator):
    why = "KV is computed again, not copied: to copy takes longer"
    fake = coordinator(rebalance=reply(MOVED | {"replayed": True, "why": why}))
    done = ctl("rebalance", "--auto", "--replay", "--endpoint", fake.endpoint)
    assert f"3.6 GB of weights loaded, {why}" in done.stdout
    assert fake.wait_for("rebalance").arguments["replay"] is True


def test_when_nothing_changes(ctl, coordinator):
    same = CHANGE | {"changed": False}
    fake = coordinator(rebalance=reply(same))
    done = ctl("rebalance", "--auto", "--dry-run", "--endpoint", fake.endpoint)
    assert "nothing would change: " in done.stdout
    fake = coordinator(rebalance=reply(same | {"dry_run": False}))
    done = ctl("rebalance", "--auto", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout[:16]) == (0, "nothing changes:")


def test_without_waiting_it_says_how_to_follow(ctl, coordinator):
    fake = coordinator(rebalance=reply(CHANGE | {"dry_run": False, "begun": True}))
    done = ctl("rebalance", "--auto", "--no-wait", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, TABLE + PREDICTED)
    assert "`shardctl status --watch` shows how far" in done.stderr
    assert fake.wait_for("rebalance").arguments["wait"] is False


def test_one_that_is_given_up_has_failed(ctl, coordinator):
    fake = coordinator(rebalance=failure(1, "the layout is as it was", "mini is lost"))
    done = ctl("rebalance", "--auto", "--endpoint", fake.endpoint)
    assert done.returncode == 1
    assert "the layout is as it was: mini is lost" in done.stderr


def test_abort(ctl, coordinator):
    fake = coordinator(rebalance_abort=reply({}))
    done = ctl("rebalance", "--abort", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, "aborted: the layout is as it was\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "nothing says which layout it is to be"),
        (("--auto", "--split", "1,2"), "one asks for the best layout"),
        (("--abort", "--auto"), "it ends what is under way"),
        (("--pin", "a"), "it must be NODE=0-11"),
    ],
)
def test_what_cannot_be_meant_is_a_matter_of_usage(ctl, words, why):
    done = ctl("rebalance", *words, "--endpoint", "tcp://127.0.0.1:1")
    assert done.returncode == 2
    assert why in done.stderr


def test_ctrl_c_ends_the_waiting_and_not_the_move(coordinator):
    fake = coordinator(rebalance=begun)
    words = ("rebalance", "--auto", "-o", "jsonl", "--endpoint", fake.endpoint)
    with running(*words) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"`shardctl rebalance --abort` ends it" in said
    assert [request.verb for request in fake.requests if request.verb != "alive"] == ["rebalance"]


def test_a_node_is_drained_and_undrained(ctl, coordinator):
    drained = MOVED | {"node": "mini"}
    alone = {"node": "air", "changed": True, "begun": False, "nodes": []}
    answers = {"mini": drained, "air": alone}
    fake = coordinator(
        nodes_drain=lambda f, p, r: reply(answers[r.arguments["node"]])(f, p, r),
        nodes_undrain=reply({"node": "mini", "changed": True}),
        nodes=reply({"nodes": [NODE]}),
    )
    at = ("--endpoint", fake.endpoint)
    assert ctl("nodes", "drain", "mini", *at).stdout == TABLE + OUTCOME
    assert ctl("nodes", "drain", "air", *at).stdout == "air is drained: it has no layers\n"
    assert ctl("nodes", "undrain", "mini", *at).stdout == "mini may have layers again\n"
    assert "studio" in ctl("nodes", *at).stdout
    assert json.loads(ctl("nodes", "-o", "json", *at).stdout)["nodes"] == [NODE]


def test_how_far_it_is():
    assert move_line(MOVING) == "copying, 3s: 12.0 MB of KV sent, 1.2 MB left"
    loading = MOVING | {"phase": "preparing"}
    assert move_line(loading) == "preparing, 3s: 3.6 GB / 3.6 GB of weights loaded"
    decision = {"why": "a better layout promises 3%, less than 10%"}
    text = status_text(STATUS | {"rebalance": {"moving": MOVING, "decision": decision}}, Style())
    assert "rebalance: copying, 3s: " in text
    assert "automatic rebalance: a better layout promises 3%, less than 10%" in text
