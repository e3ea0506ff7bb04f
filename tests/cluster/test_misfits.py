"""Nodes and coordinators that do not belong together say so, and end or wait; nothing is left."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from daemon import messages as msg
from tests.cluster.generation import Generation
from tests.cluster.harness import PATIENCE, Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference
from tests.cluster.shardctl import refused


@pytest.fixture
def other_protocol() -> Iterator[str]:
    """A coordinator of a later protocol: it knows this much of ours, that both can be named."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    address = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if not router.poll(50):
                continue
            peer, data = router.recv_multipart()
            request = msg.decode(data)
            assert isinstance(request, msg.Request)
            what = "the coordinator is shardbus 9.9 and speaks protocol 99"
            why = f"this shardctl speaks protocol {request.protocol}"
            failure = msg.Failure(request.request, 5, what, why, "install the same version")
            router.send_multipart([peer, msg.encode(failure)])

    thread = threading.Thread(target=serve)
    thread.start()
    yield address
    stop.set()
    thread.join()
    router.close()
    context.term()


def test_shardctl_and_a_coordinator_of_another_protocol(other_protocol: str) -> None:
    for words in (("status",), ("generate", "x"), ("ps",)):
        error = refused(None, 5, "--endpoint", other_protocol, *words)
        assert "protocol 99" in error


def test_something_else_on_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        error = refused(None, 4, "--timeout", "1", "--endpoint", f"127.0.0.1:{port}", "status")
        assert str(port) in error


def test_a_shardctl_of_another_protocol(cluster: Cluster) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(cluster.address)
        dealer.send(msg.encode(msg.Request(msg.PROTOCOL + 1, 1, "status", {})))
        assert dealer.poll(int(PATIENCE * 1000))
        answer = msg.decode(dealer.recv())
        dealer.setsockopt(zmq.LINGER, 0)
    assert isinstance(answer, msg.Failure)
    assert answer.code == 5
    assert str(msg.PROTOCOL + 1) in answer.why


def test_a_node_of_another_version(cluster: Cluster) -> None:
    hello = msg.NodeHello(msg.PROTOCOL, "0.0.1", "old", "i", 1, "h", "s", "3.11", 1, 1 << 30, 0)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.ROUTING_ID, b"node:old:i")
        dealer.connect(cluster.address)
        dealer.send(msg.encode(hello))
        assert dealer.poll(int(PATIENCE * 1000))
        answer = msg.decode(dealer.recv())
        dealer.setsockopt(zmq.LINGER, 0)
    assert isinstance(answer, msg.Refused)
    assert "0.0.1" in answer.what
    assert "old" not in {node["name"] for node in cluster.nodes()}


@pytest.mark.soak
def test_a_node_with_other_weights(
    tmp_path: Path, model_folder: Path, reference: Reference
) -> None:
    """The same name, one byte changed: refused by digest; mended, it comes up by itself."""
    other = Path(shutil.copytree(model_folder, tmp_path / "other"))
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    wrong = {"n2": {"models": {"embedded": str(other)}}}
    cluster = Cluster(tmp_path / "c", (4, 4), {"embedded": model_folder}, changes=wrong)
    try:
        cluster.start(ready=False)
        until(lambda: cluster.state() and cluster.events("load-failed"), "it is noticed")
        assert "digest" in cluster.events("load-failed")[0]["text"]
        assert "n2" in str(cluster.events("load-failed"))
        assert cluster.state() == "degraded"
        assert "digest" in cluster.ask("status")["reason"]
        shutil.copy(model_folder / "model.safetensors", weights)
        cluster.wait_ready()
        reference.check(CODE, Generation(cluster, CODE, 12).result().tokens)
    finally:
        cluster.close()


def test_a_port_in_use(tmp_path: Path, model_folder: Path) -> None:
    cluster = Cluster(tmp_path / "c", (8,), {"embedded": model_folder})
    port = int(cluster.address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        try:
            cluster.start(ready=False)
            assert cluster.processes["n1"].wait(PATIENCE) not in (0, None)
            log = (tmp_path / "c" / "n1.log").read_text()
            assert str(port) in log
            assert "in use" in log.lower()
            assert "Traceback" not in log
            until(lambda: not cluster.family(), "nothing is left")
        finally:
            cluster.close()


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "c", (8,), {}, changes={"n1": {"timeouts": {"drian_s": 3}}})
    try:
        process = cluster.start_node("n1")
        assert process.wait(PATIENCE) == 78
        log = (tmp_path / "c" / "n1.log").read_text()
        assert "drian_s" in log
        assert "drain_s" in log
        assert log.count("\n") == 1
    finally:
        cluster.close()
