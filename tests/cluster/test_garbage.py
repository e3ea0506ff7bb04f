"""Whatever comes to a socket: what is no frame or message of ours is counted and dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import zmq

from daemon import messages as msg
from daemon.messages import MAX_MESSAGE_BYTES, PROTOCOL, Request, encode
from tests.cluster import strangers
from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference

NOT_COUNTED = 3  # an oversized one ends its connection; one of a later term is kept for it


NOT_FROM_CLIENTS = (
    msg.NodeHeartbeat, msg.Goodbye, msg.ChildExited, msg.Heartbeat, msg.Loaded, msg.LoadFailed,
    msg.Assigned, msg.LinkFailed, msg.LogsReport, msg.Welcome, msg.Load, msg.Unload, msg.KillStage,
)  # fmt: skip
VALUES = {int: 1 << 60, float: 1e9, str: "?", bool: True, bytes: bytes(16)}


def lie_about(kind: Any, node: str) -> Any:
    """A message of this kind with all its fields, none of them true."""
    hints = get_type_hints(kind)
    made = {
        name: VALUES.get(hint, {} if "dict" in str(hint) else []) for name, hint in hints.items()
    }
    return kind(**(made | ({"node": node} if "node" in made else {})))


def dropped(cluster: Cluster, index: int) -> int:
    return sum(cluster.node(index)["dropped"].values())


def dropped_by_coordinator(cluster: Cluster) -> int:
    return sum(cluster.ask("pipeline")["dropped"].values())


@pytest.fixture
def sizes(model_folder: Path) -> tuple[int, int]:
    config: dict[str, Any] = json.loads((model_folder / "config.json").read_text())
    return config["hidden_size"], config["vocab_size"]


@pytest.fixture
def unharmed(cluster: Cluster, reference: Reference) -> Any:
    """A request that runs meanwhile, and one afterwards, are exact; no process was replaced."""
    pids = [*cluster.stage_pids(), cluster.coordinator_pid()]
    meanwhile = Generation(cluster, CODE, 120).wait_tokens(1)
    yield
    reference.check(CODE, meanwhile.result().tokens)
    assert meanwhile.reply["reissues"] == 0
    reference.check(CODE, Generation(cluster, CODE, 20).result().tokens)
    assert [*cluster.stage_pids(), cluster.coordinator_pid()] == pids


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.usefixtures("unharmed")
def test_a_stage(cluster: Cluster, sizes: tuple[int, int], index: int) -> None:
    status = cluster.ask("status")
    address, before = cluster.node(index)["address"], dropped(cluster, index)
    strangers.raw(address, index)
    sent = [*strangers.nonsense(index)]
    sent += strangers.broken_frames(status["term"], status["epoch"], index)
    sent.append(strangers.oversized(*sizes))
    strangers.messages(address, zmq.PUSH, sent)
    until(lambda: dropped(cluster, index) >= before + len(sent) - NOT_COUNTED, "most are counted")


@pytest.mark.usefixtures("unharmed")
def test_the_results(cluster: Cluster, sizes: tuple[int, int]) -> None:
    status = cluster.ask("status")
    addresses = strangers.listening(cluster.coordinator_pid())
    assert cluster.address in addresses
    (address,) = (a for a in addresses if a != cluster.address)
    before = dropped_by_coordinator(cluster)
    strangers.raw(address, 4)
    sent = [*strangers.nonsense(4)]
    sent += strangers.broken_frames(status["term"], status["epoch"], 4)
    sent.append(strangers.oversized(*sizes))
    strangers.messages(address, zmq.PUSH, sent)
    until(
        lambda: dropped_by_coordinator(cluster) >= before + len(sent) - NOT_COUNTED,
        "most are counted",
    )


@pytest.mark.usefixtures("unharmed")
def test_the_control_socket(cluster: Cluster) -> None:
    before = dropped_by_coordinator(cluster)
    strangers.raw(cluster.address, 5)
    term = cluster.ask("status")["term"]
    sent = [*strangers.nonsense(5), *strangers.broken_frames(term, 1, 5)]
    sent.append([bytes(MAX_MESSAGE_BYTES + 1)])
    strangers.messages(cluster.address, zmq.DEALER, sent)
    until(
        lambda: dropped_by_coordinator(cluster) >= before + len(sent) - NOT_COUNTED,
        "most are counted",
    )


@pytest.mark.usefixtures("unharmed")
def test_well_formed_lies(cluster: Cluster) -> None:
    """Messages of the protocol, about nodes and processes that do not exist, or with odd values."""
    short = {"prompt": "x", "max_tokens": 4}  # where a value means something, nobody reads it
    lies = [
        *map(lie_about, NOT_FROM_CLIENTS, ["nowhere"] * len(NOT_FROM_CLIENTS)),
        *map(lie_about, NOT_FROM_CLIENTS, ["n2"] * len(NOT_FROM_CLIENTS)),
        msg.KvReport(0, "n2", [{"sequence": "zz"}, {"sequence": 5}, {"sequence": "00"}, {}]),
        msg.KvReport(99, "n2", [{"sequence": None, "tokens": "many"}]),
        *(
            Request(PROTOCOL, n, verb, arguments)
            for n, (verb, arguments) in enumerate(
                [
                    ("nonsense", {}),
                    ("generate", {}),
                    ("generate", {"prompt": 5}),
                    ("generate", {**short, "sampling": {"temperature": "hot"}}),
                    ("generate", {**short, "sampling": {"top_k": 3.5, "seed": 1.5}}),
                    ("generate", {**short, "sampling": {"logit_bias": [[1]]}}),
                    ("generate", {**short, "sampling": {"logit_bias": [[10**9, 1.0]]}}),
                    ("generate", {**short, "sampling": {"logit_bias": [[-7, 1.0]]}}),
                    ("generate", {**short, "sampling": {"temperature": float("nan")}}),
                    ("generate", {**short, "sampling": {"logprobs": "all"}}),
                    ("generate", {**short, "sampling": {"penalty_window": 2.5,
                                                       "presence_penalty": 1.0}}),
                    ("generate", {"messages": [{"role": 1}]}),
                    ("generate", {"prompt": "x", "max_tokens": 1 << 63}),
                    ("generate", {"prompt": "x", "stop": [""]}),
                    ("cancel", {"sequence": {}}),
                    ("cancel", {"sequence": "zz"}),
                    ("logs", {"lines": -1}),
                    ("logs", {"node": "../../etc/passwd"}),
                    ("events", {"limit": "all"}),
                    ("events", {"limit": -3}),
                    ("model.load", {"model": 7}),
                    ("model.load", {"model": "embedded", "split": ["a"]}),
                ]
            )
        ),
        Request(PROTOCOL + 1, 1, "status", {}),
    ]  # fmt: skip
    strangers.messages(cluster.address, zmq.DEALER, [[encode(lie)] for lie in lies])
    cluster.wait_ready()
    # What has no end is not waited for.
    (endless,) = until(
        lambda: [
            row["sequence"]
            for row in cluster.ask("ps")["sequences"]
            if row["prompt_tokens"] == 1 and row["output_tokens"] > 4
        ],
        "one is answered until the context is full",
    )
    cluster.ask("cancel", sequence=endless)
