"""`shardctl plan`: what is asked, and what is printed."""

import json

import pytest

from daemon.messages import Chunk, Reply
from tests.ctl.samples import PLAN

TEXT = """\
Qwen3-32B-4bit with 32 768 tokens of context, for balanced
STAGE  NODE    LAYERS  WEIGHTS      KV              MEMORY    STEP  MEASURED
    0  studio  0-47    14.0 GB  6.4 GB  20.4 GB of 96.0 GB  15.1ms    14.9ms
    1  mini    48-63    5.6 GB  2.1 GB   7.7 GB of 22.0 GB  13.2ms         -

one stream: 34.4 tokens/s without guesses (29.1ms a token) · stages full, a token a step: \
66.2 tokens/s (15.1ms the slowest)
3 links between nodes are not in use, their times assumed
left out: air: with it a token would take 35.1 ms instead of 29.1
"""


def planned(fake, peer, request):
    fake.say(peer, Chunk(request.request, {"measuring": ["air", "mini"]}))
    fake.say(peer, Reply(request.request, PLAN))


def test_the_plan_is_printed(ctl, coordinator):
    fake = coordinator(plan=planned)
    done = ctl("plan", "--endpoint", fake.endpoint)
    assert (done.returncode, done.stdout) == (0, TEXT)
    assert "measuring air, mini" in done.stderr
    assert fake.wait_for("plan").arguments == {
        "model": None, "objective": "balanced", "context": None, "split": None, "pins": {},
        "memory": {}, "exclude": [],
    }  # fmt: skip
    done = ctl("plan", "-o", "json", "-q", "--endpoint", fake.endpoint)
    assert json.loads(done.stdout)["stages"] == PLAN["stages"]
    assert done.stderr == ""


def test_wishes_reach_the_coordinator(ctl, coordinator):
    fake = coordinator(plan=planned)
    words = ("--pin", "a=0-11", "--pin", "b=12", "--max-memory", "a=48GB", "--exclude", "air")
    done = ctl("plan", "qwen", *words, "--objective", "latency", "--endpoint", fake.endpoint)
    assert done.returncode == 0
    asked = fake.wait_for("plan").arguments
    assert asked["pins"] == {"a": [0, 12], "b": [12, 13]}
    assert (asked["memory"], asked["exclude"]) == ({"a": 48_000_000_000}, ["air"])
    assert (asked["model"], asked["objective"]) == ("qwen", "latency")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--pin", "a"), "it must be NODE=0-11"),
        (("--pin", "=0-1"), "it must be NODE=0-11"),
        (("--pin", "a=x"), "layers are a number"),
        (("--pin", "a=5-3"), "layers are a number"),
        (("--max-memory", "a=many"), "a size is a number"),
        (("--max-memory", "a=1"), "it must lie between"),
        (("--split", "a"), "whole numbers with commas"),
    ],
)
def test_what_cannot_be_meant_is_a_matter_of_usage(ctl, words, why):
    done = ctl("plan", *words, "--endpoint", "tcp://127.0.0.1:1")
    assert done.returncode == 2
    assert why in done.stderr
