"""Stages save what they hold and take it back: after a restart, under another split, from each
other, and never from a damaged file.
"""

from __future__ import annotations

import logging
import os
import select
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from daemon import messages as msg
from daemon.engine.snapshot import take
from daemon.engine.stage import Stage
from daemon.fidelity import Fidelity
from daemon.history import History
from daemon.layers import LayerRange
from daemon.stage.bulk import Bulk
from daemon.stage.codecs import RowCoder
from daemon.stage.exchange import CREDIT, RemoteFile, Shelf
from daemon.stage.saving import SavedKv
from daemon.stage.worker import Worker
from daemon.storage.content import SLICE, read_layer
from daemon.storage.errors import CannotRead
from daemon.storage.folder import KvFolder
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT
from tests.storage.content import DIGEST, LAYERS, run, save
from transports.codecs.layout import Codec
from transports.errors import AddressError
from transports.frame import Frame, FrameKind, Release, Span

SEQUENCE, OTHER = b"a" * 16, b"b" * 16
ADDRESS = "tcp://127.0.0.1:0"
EXACT = Fidelity().to_wire()
GENERATED = 12
MANY = 1 << 30


class Node:
    """A stage without a process: its worker, its folder, its bulk thread."""

    def __init__(self, context: Any, root: Path, stage: Stage | None) -> None:
        self.root = root
        self.bulk = Bulk(context, ADDRESS, (), KvFolder(root, MANY))
        self.bulk.start()
        self.saved = SavedKv(root.name, "i", self.bulk)
        self.worker = None
        if stage:
            self.worker = Worker(stage, RowCoder.of(stage.info), 0, lambda: 0.0, DIGEST)

    def ask(self, asked: Any) -> Any:
        """The answer, when it comes."""
        (answer,) = self.saved.hear(asked, self.worker) or self.answers()
        return answer

    def answers(self) -> list[Any]:
        """The next ones that come."""
        answers: list[Any] = []
        while not answers:
            assert select.select([self.saved.pollable], [], [], 30)[0], "no answer"
            answers += self.saved.finish(self.worker)
            if self.worker:
                self.worker.check_integrity()
        return answers

    def file(self) -> Path:
        return next(self.root.rglob("*.safetensors"))


class Rig:
    """Nodes that are started and ended together."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.root = root
        self.folder = folder
        self.nodes: list[Node] = []

    def start(self, cuts: tuple[int, ...], spares: int = 0) -> list[Node]:
        """In folders that are named by place. Spares hold no layers."""
        stages = [Stage.load(self.folder, LayerRange(a, b)) for a, b in pairwise(cuts)]
        for i, stage in enumerate([*stages, *[None] * spares]):
            self.nodes.append(Node(self.context, self.root / f"n{i}", stage))
        return self.nodes

    def stop(self) -> None:
        for node in self.nodes:
            node.bulk.stop()
        self.nodes = []


@pytest.fixture
def rig(tmp_path: Path, tiny: MakeTiny) -> Iterator[Rig]:
    rig = Rig(tmp_path, tiny("llama", None).folder)
    yield rig
    rig.stop()
    rig.context.term()


def work(tokens: list[int], position: int, sequence: bytes) -> Frame:
    """What comes after the first `position` of these tokens; wants one more."""
    prefix_hash = History(tokens).hash_at(position)
    span = Span(sequence, 1, position, len(tokens) - position, prefix_hash, 1)
    constants = {sequence: {"sampling": {}, "kv_bits": 0, "codecs": []}}
    fresh = tuple(tokens[position:])
    return Frame(FrameKind.WORK, 1, 1, 1, spans=(span,), tokens=fresh, constants=constants)


def generate(nodes: list[Node], prompt: list[int], count: int, sequence: bytes) -> list[int]:
    """The greedy answer, token by token."""
    tokens, position = list(prompt), 0
    for _ in range(count):
        result = through(nodes, work(tokens, position, sequence))
        assert not result.departures
        position = len(tokens)
        tokens += result.tokens
    return tokens[len(prompt) :]


def through(nodes: list[Node], frame: Frame) -> Frame:
    for node in nodes:
        assert node.worker
        frame = node.worker.handle(frame, 0.0)
    return frame


def sources(nodes: list[Node]) -> list[dict[str, Any]]:
    """What the nodes say they have, as LoadKv names it."""
    found = []
    for node in nodes:
        stored = node.ask(msg.DiskQuery(1, DIGEST))
        assert isinstance(stored, msg.KvStored)
        for file in stored.files:
            assert len(file["tokens"]) == 4 * len(PROMPT)
            found.append({"address": stored.address, "start": file["start"], "end": file["end"]})
    return found


def load(length: int, sequence: bytes, peers: list[dict[str, Any]], query: int = 1) -> msg.LoadKv:
    token_hash = History(PROMPT[:length]).hash_at(length)
    return msg.LoadKv(1, query, sequence, EXACT, length, token_hash, peers)


def saved_by_two(rig: Rig) -> None:
    """The prompt, by stages of layers 0-1 and 2-3, which have ended."""
    nodes = rig.start((0, 2, 4))
    generate(nodes, PROMPT, 1, SEQUENCE)
    for query, node in enumerate(nodes, 7):
        answer = node.ask(msg.SaveKv(1, query, SEQUENCE, EXACT, len(PROMPT)))
        assert (answer.query, answer.tokens, answer.why) == (query, len(PROMPT), "")
        assert answer.bytes == node.file().stat().st_size
    rig.stop()


def go_on(nodes: list[Node], tiny: MakeTiny) -> None:
    """A restored sequence gives what the reference gives: the last token is computed anew."""
    tokens, got = list(PROMPT), []
    for _ in range(GENERATED):
        got += through(nodes, work(tokens, len(tokens) - 1, OTHER)).tokens
        tokens = [*PROMPT, *got]
    assert tuple(got) == tiny("llama", None).reference[:GENERATED]


@pytest.mark.parametrize(("cuts", "spares"), [((0, 1, 3, 4), 0), ((0, 4), 1), ((0, 2, 4), 0)])
def test_another_split_reads_from_whoever_has_it(
    cuts: tuple[int, ...], spares: int, rig: Rig, tiny: MakeTiny
) -> None:
    saved_by_two(rig)
    nodes = rig.start(cuts, spares)
    peers = sources(nodes)
    assert {(p["start"], p["end"]) for p in peers} == {(0, 2), (2, 4)}
    stages = [node for node in nodes if node.worker]
    for node in stages:
        answer = node.ask(load(len(PROMPT), OTHER, peers))
        assert (answer.tokens, answer.why) == (len(PROMPT), "")
        assert answer.bytes > 0
        assert node.worker
        assert node.worker.ledger.held() == {OTHER: len(PROMPT)}
    go_on(stages, tiny)


def test_computing_goes_on_while_it_is_written(rig: Rig, tiny: MakeTiny) -> None:
    """What is saved is what was there, and the sequence may be released at once."""
    nodes = rig.start((0, 4))
    generate(nodes, PROMPT, 1, SEQUENCE)
    worker = nodes[0].worker
    assert worker
    assert not nodes[0].saved.hear(msg.SaveKv(1, 1, SEQUENCE, EXACT, len(PROMPT)), worker)
    generate(nodes, [1, 2, 3], 5, OTHER)
    worker.handle(Frame(FrameKind.WORK, 1, 1, 2, commands=(Release(SEQUENCE),)), 0.0)
    assert SEQUENCE not in worker.caches
    (answer,) = nodes[0].answers()
    assert answer.why == ""
    rig.stop()
    nodes = rig.start((0, 4))
    nodes[0].ask(load(len(PROMPT), OTHER, []))
    go_on(nodes, tiny)


def test_a_layer_is_read_when_the_one_before_is_installed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly that goes, and whoever else wants something meanwhile."""
    saved_by_two(rig)
    node = rig.start((0, 2, 4))[0]
    reads = layers_read(monkeypatch)
    assert not node.saved.hear(load(len(PROMPT), OTHER, []), node.worker)
    for installed in range(3):
        assert select.select([node.saved.pollable], [], [], 30)[0]
        assert remote_size(rig, node) == node.file().stat().st_size
        assert reads == [0, 1][: installed + 1]  # after that answer it has gone on if it could
        answers = node.saved.finish(node.worker)
    assert [one.why for one in answers] == [""]


def remote_size(rig: Rig, node: Node) -> int:
    """Of a node's file, as another node is told."""
    entry, layers = node.file().parent.name, LayerRange(0, 2)
    file = RemoteFile(rig.context, node.bulk.address, (), DIGEST, entry, layers)
    run(file.open())
    file.close()
    return file.size


def test_nothing_is_held_when_a_layer_is_nowhere(rig: Rig) -> None:
    saved_by_two(rig)
    node = rig.start((0, 3, 4))[0]
    answer = node.ask(load(len(PROMPT), OTHER, []))
    assert (answer.tokens, answer.bytes) == (0, 0)
    assert "layers [2] are not to be had" in answer.why
    assert node.worker
    assert not node.worker.caches


def test_a_damaged_payload_is_found_and_read_elsewhere(
    rig: Rig, caplog: pytest.LogCaptureFixture, tiny: MakeTiny
) -> None:
    """One's own file is put aside; another node's is only not used."""
    saved_by_two(rig)
    whole = (rig.root / "n1").rename(rig.root / "n2")
    nodes = rig.start((0, 2, 4))
    rig.nodes.append(Node(rig.context, whole, None))
    os.makedirs(nodes[1].root, exist_ok=True)
    copy = nodes[1].root / nodes[2].file().relative_to(whole)
    copy.parent.mkdir(parents=True)
    data = bytearray(nodes[2].file().read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    peers = sources(nodes)
    with caplog.at_level(logging.WARNING, "shardbus"):
        nodes[0].ask(load(len(PROMPT), OTHER, peers))
        answer = nodes[1].ask(load(len(PROMPT), OTHER, peers))
    assert answer.why == ""
    assert "the bytes of layer 3 have changed" in caplog.text
    assert str(copy) in caplog.text
    assert not copy.exists()
    go_on(nodes[:2], tiny)


def test_other_tokens_type_or_model_are_not_taken(rig: Rig) -> None:
    saved_by_two(rig)
    nodes = rig.start((0, 2, 4))
    good = load(len(PROMPT), OTHER, [])
    others = (Fidelity(8), Fidelity(0, ((2, Codec.FP8),)))
    for changes in (
        {"token_hash": 5},
        {"tokens": 3},
        {"fidelity": {}},
        *({"fidelity": other.to_wire()} for other in others),
    ):
        fields = {name: getattr(good, name) for name in good.__dataclass_fields__} | changes
        assert nodes[0].ask(msg.LoadKv(**fields)).why
    assert nodes[0].worker
    assert not nodes[0].worker.caches
    nodes[0].worker.digest = "cd" * 32
    assert "not to be had" in nodes[0].ask(good).why


def test_a_sequence_that_was_released_meanwhile_is_not_held(rig: Rig) -> None:
    saved_by_two(rig)
    node = rig.start((0, 2, 4))[0]
    assert node.worker
    node.worker.ledger.release(OTHER)
    assert node.ask(load(len(PROMPT), OTHER, [])).why == "it was released meanwhile"
    assert not node.worker.caches


def test_a_restore_is_abandoned_when_nobody_waits_any_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator releases what took too long: the next restore does not wait for it."""
    saved_by_two(rig)
    node = rig.start((0, 2, 4))[0]
    reads = layers_read(monkeypatch)
    assert node.worker
    assert not node.saved.hear(load(len(PROMPT), OTHER, [], 1), node.worker)
    assert not node.saved.hear(load(len(PROMPT), SEQUENCE, [], 2), node.worker)
    assert select.select([node.saved.pollable], [], [], 30)[0]
    node.worker.handle(Frame(FrameKind.WORK, 1, 1, 1, commands=(Release(OTHER),)), 0.0)
    (released,), (restored,) = node.answers(), node.answers()
    assert (released.query, released.why) == (1, "it was released meanwhile")
    assert (restored.query, restored.why) == (2, "")
    assert reads == [0, 0, 1]


def test_an_unloaded_stage_is_let_go_of(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was to restore is abandoned, and its weights are not kept alive."""
    saved_by_two(rig)
    node = rig.start((0, 2, 4))[0]
    reads = layers_read(monkeypatch)
    for query in (1, 2):
        assert not node.saved.hear(load(len(PROMPT), OTHER, [], query), node.worker)
    assert select.select([node.saved.pollable], [], [], 30)[0]
    gone, node.worker = weakref.ref(node.worker), None
    answers = node.saved.unloaded()
    assert gone() is None
    assert [one.query for one in answers] == [1, 2]
    assert {one.why for one in answers} == {"the layers were unloaded meanwhile"}
    assert len(sources([node])) == 1
    assert reads == [0]


def layers_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those that reading has begun of."""
    reads: list[int] = []

    def noted(source: Any, manifest: Any, layer: int, form: Any) -> Any:
        reads.append(layer)
        return read_layer(source, manifest, layer, form)

    monkeypatch.setattr("daemon.stage.restoring.read_layer", noted)
    return reads


def test_one_is_written_at_a_time_and_the_others_wait_by_name(rig: Rig) -> None:
    """What waits keeps no memory alive: it may be released meanwhile, and is not written then."""
    node = rig.start((0, 4))[0]
    names = [bytes([n]) * 16 for n in range(4)]
    for n, name in enumerate(names):
        generate([node], [*PROMPT, n], 1, name)
    assert node.worker
    for query, name in enumerate(names):
        assert not node.saved.hear(msg.SaveKv(1, query, name, EXACT, len(PROMPT) + 1), node.worker)
    released = {n: weakref.ref(node.worker.caches[names[n]].own[0].arrays()[0]) for n in (1, 2)}
    frame = Frame(FrameKind.WORK, 1, 1, 2, commands=tuple(Release(names[n]) for n in released))
    node.worker.handle(frame, 0.0)
    assert [array() for array in released.values()] == [None, None]
    answers: list[Any] = []
    while len(answers) < len(names):
        answers += node.answers()
    assert [one.query for one in answers] == [0, 1, 2, 3]
    gone = "it is no longer held"
    assert [one.why for one in answers] == ["", gone, gone, ""]


def test_nothing_of_what_was_written_stays_in_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[Any] = []

    def noted(cache: Any, length: int) -> Any:
        parts = take(cache, length)
        views.append(weakref.ref(parts[0].arrays[0].parts[0]))
        return parts

    monkeypatch.setattr("daemon.stage.saving.take", noted)
    nodes = rig.start((0, 4))
    generate(nodes, PROMPT, 1, SEQUENCE)
    assert nodes[0].ask(msg.SaveKv(1, 1, SEQUENCE, EXACT, len(PROMPT))).why == ""
    assert [view() for view in views] == [None]


@pytest.mark.parametrize(
    ("sequence", "length", "why"),
    [(OTHER, 4, "no longer held"), (SEQUENCE, 21, "21 positions are wanted, 20 are held")],
)
def test_what_is_not_held_is_not_saved(sequence: bytes, length: int, why: str, rig: Rig) -> None:
    nodes = rig.start((0, 4))
    generate(nodes, PROMPT, 1, SEQUENCE)
    answer = nodes[0].ask(msg.SaveKv(1, 1, sequence, EXACT, length))
    assert why in answer.why
    assert list(nodes[0].root.rglob("*.safetensors")) == []


def test_a_disk_that_refuses_costs_a_reason_and_nothing_else(rig: Rig) -> None:
    nodes = rig.start((0, 4))
    generate(nodes, PROMPT, 1, SEQUENCE)
    nodes[0].root.write_text("a file where the folder belongs")
    answer = nodes[0].ask(msg.SaveKv(1, 1, SEQUENCE, EXACT, 4))
    assert answer.why.endswith("layers-0-4.safetensors: file exists")
    assert len(generate(nodes, PROMPT, 3, OTHER)) == 3


@pytest.mark.parametrize("error", [OSError(5, "no luck"), MemoryError("no luck")])
def test_a_job_that_breaks_off_is_reported_and_the_next_one_done(
    error: Exception, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_by_two(rig)
    node = rig.start((0, 2, 4))[0]
    generate(rig.nodes, PROMPT, 1, SEQUENCE)

    def broken(*given: Any) -> Any:
        raise error

    for name, asked in (
        ("save", msg.SaveKv(1, 1, SEQUENCE, EXACT, 4)),
        ("touch", load(len(PROMPT), OTHER, [])),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(KvFolder, name, broken)
            assert "no luck" in node.ask(asked).why
    assert node.worker
    assert OTHER not in node.worker.caches
    assert node.ask(msg.SaveKv(1, 1, SEQUENCE, EXACT, 4)).why == ""
    assert node.ask(load(len(PROMPT), OTHER, [])).why == ""


# --- between two nodes ---


@pytest.fixture
def context() -> Iterator[Any]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.term()


def test_a_node_that_is_gone_is_given_up(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.stage.exchange.PATIENCE_SECONDS", 0.05)
    shelf = Shelf(context, ADDRESS, ())
    shelf.close()
    file = RemoteFile(context, shelf.address, (), DIGEST, "0" * 32, LAYERS)
    with pytest.raises(CannotRead, match="no answer for"):
        run(file.open())
    file.close()


def test_a_node_for_which_there_is_no_socket_is_not_read_from() -> None:
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, 1)
        with context.socket(zmq.DEALER), pytest.raises(CannotRead, match="too many open"):
            RemoteFile(context, "tcp://127.0.0.1:1", (), DIGEST, "0" * 32, LAYERS)


def test_what_comes_to_the_shelf_is_checked(context: Any, tmp_path: Path) -> None:
    folder = KvFolder(tmp_path / "kv", MANY)
    path = save(folder)
    (tmp_path / "secret").write_text("not yours")
    entry = path.parent.name
    shelf = Shelf(context, ADDRESS, ())
    peer = context.socket(zmq.DEALER)
    peer.connect(shelf.address)

    def asked(*parts: bytes) -> list[Any] | None:
        peer.send_multipart(parts)
        assert shelf.socket.poll(5000)
        shelf.serve(folder)
        return peer.recv_multipart() if peer.poll(50) else None

    def packed(*values: Any) -> bytes:
        data: bytes = msgpack.packb(values)
        return data

    good = (1, DIGEST, entry, 2, 5, 0, 8)
    answer = asked(packed(*good))
    assert answer is not None
    assert answer[1] == path.read_bytes()[:8]
    for bad in (
        b"",
        b"\xc1",
        packed(1),
        packed(*good[:6], "8"),
        packed(*good[:6], -1),
        packed(*good, 1),
        packed(True, *good[1:]),
    ):
        assert asked(bad) is None
    assert asked(packed(*good), b"more") is None
    for refused in (
        (1, DIGEST, "../..", 2, 5, 0, 8),
        (1, "../../..", entry, 2, 5, 0, 8),
        (1, DIGEST, entry, 2, 6, 0, 8),
        (1, DIGEST, entry, 2, 5, 0, 1 << 40),
    ):
        answer = asked(packed(*refused))
        assert answer is not None
        assert answer[1] == b""
    answer = asked(packed(1, DIGEST, entry, 2, 5, 1 << 40, 8))
    assert answer is not None
    assert answer[1] == b""
    peer.close(0)
    shelf.close()


@pytest.mark.parametrize("address", ["ipc:///tmp/x", "tcp://10.1.2.3:5", "memory://x", "nonsense"])
def test_other_addresses_are_not_read_from(address: str, context: Any) -> None:
    with pytest.raises(AddressError):
        RemoteFile(context, address, (), DIGEST, "0" * 32, LAYERS)


def test_a_large_file_comes_in_many_pieces(context: Any, tmp_path: Path) -> None:
    """More than may be under way at once, and both nodes read from each other."""
    tokens = tuple(range(40_000))
    roots = [tmp_path / name for name in ("one", "other")]
    paths = [save(KvFolder(root, MANY), tokens) for root in roots]
    bulks = [Bulk(context, ADDRESS, (), KvFolder(root, MANY)) for root in roots]
    for bulk in bulks:
        bulk.start()
    size = paths[0].stat().st_size
    assert size > CREDIT * SLICE
    files = [
        RemoteFile(context, bulk.address, (), DIGEST, paths[0].parent.name, LAYERS)
        for bulk in bulks
    ]
    for file in files:
        run(file.open())
    buffers = [memoryview(bytearray(size)) for _ in files]
    reads = [file.read(0, buffer) for file, buffer in zip(files, buffers, strict=True)]
    while reads:
        reads = [steps for steps in reads if next(steps, True) is None]
    assert [bytes(b) for b in buffers] == [path.read_bytes() for path in paths]
    for file in files:
        file.close()
    for bulk in bulks:
        bulk.stop()
