"""The coordinator asks until it knows what is saved, and believes a save or a load only when every
stage has said so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon import messages as msg
from daemon.cluster.events import Slot
from daemon.coordinator.answer import Answer, Refusal
from daemon.coordinator.disks import ASK_AGAIN_SECONDS, SURVEY_SECONDS
from daemon.coordinator.kv_verbs import KvVerbs
from daemon.coordinator.process import Coordinator
from daemon.coordinator.saved_kv import LOAD_SECONDS, RETRY_SECONDS, Held, Outcome, SavedKv
from daemon.fidelity import Fidelity
from daemon.footprint import Footprint
from daemon.history import History
from daemon.layers import LayerRange
from daemon.scheduler.memory import Memory, StageMemory
from daemon.scheduler.pipeline import Limits
from daemon.scheduler.scheduler import Scheduler
from daemon.scheduler.stored import pack
from daemon.storage.manifest import Identity

DIGEST = "ab" * 32
TOKENS = tuple(random.Random(3).choices(range(500), k=100))
HASH = History(TOKENS).hash_at(len(TOKENS))
ENTRY = Identity(DIGEST, Fidelity(), len(TOKENS), HASH).entry
SEQUENCE, NEW = b"s" * 16, b"\1" * 16
LAYERS = 8


class StandIn:
    """Two stages and a spare; what they are told is kept, what they say is said by the test."""

    def __init__(self) -> None:
        self.model: Any = None
        self.members: dict[str, Any] = {}
        self.cluster = SimpleNamespace(
            members=self.members, slots=(), up=False, why_down="x", term=1
        )
        self.config = SimpleNamespace(node=SimpleNamespace(kv_disk=1))
        self.scheduler = Scheduler(Limits())
        self.said: list[tuple[str, Any]] = []
        self.sequences = 0
        self.notes: list[str] = []
        self.replies: list[Any] = []
        self.clients = SimpleNamespace(
            conversations=SimpleNamespace(
                sequence_of={"talk": SEQUENCE}.get,
                recall=lambda name, then, answer: then(self.conversation),
            )
        )
        self.conversation: Any = None
        self.saved_kv = SavedKv(cast(Coordinator, self))
        self.verbs = KvVerbs(cast(Coordinator, self))

    def to_stage(self, node: str, message: msg.Message) -> None:
        self.said.append((node, message))

    def perform(self, actions: list[Any]) -> None:
        self.scheduler.check_integrity()

    def note(self, kind: str, node: str, text: str) -> None:
        self.notes.append(f"{kind} {text}")

    def new_sequence(self) -> bytes:
        self.sequences += 1
        return bytes([self.sequences]) * 16

    @property
    def kept(self) -> dict[bytes, tuple[int, ...]]:
        """What the stages hold, as far as the scheduler knows."""
        return {e.sequence: tuple(e.tokens) for e in self.scheduler.residency.index.kept}

    def keep(self, sequence: bytes, tokens: tuple[int, ...]) -> None:
        assert self.scheduler.residency.expected.begin(sequence, Fidelity(), len(tokens))
        self.scheduler.residency.expected.came(sequence, Fidelity(), tokens, 0.0)

    def before(self, kv_bits: int, tokens: list[int], go_on: Callable[[], object]) -> None:
        """A request comes."""
        if found := self.saved_kv.worth_loading(Fidelity(kv_bits), tuple(tokens)):
            self.saved_kv.load(found[0], lambda _: go_on())
        else:
            go_on()

    def restored(self, query: int, why: str = "") -> None:
        """Both stages answer; b with this reason."""
        self.saved_kv.restored(msg.KvRestored(query, "a", 100, 7, 0.1, ""))
        self.saved_kv.restored(msg.KvRestored(query, "b", 0 if why else 100, 8, 0.1, why))

    def saves(self, why: str = "") -> None:
        """Both stages answer what they were asked last; b with this reason."""
        query = self.asked(msg.SaveKv)["a"].query
        self.saved_kv.saved(msg.KvSaved(query, "a", 100, 30, 0.1, ""))
        self.saved_kv.saved(msg.KvSaved(query, "b", 100, 0 if why else 30, 0.1, why))

    def start(self, node: str, incarnation: str = "i1") -> None:
        stage = SimpleNamespace(incarnation=incarnation)
        self.members[node] = SimpleNamespace(name=node, stage=stage)

    def up(self, **layers: tuple[int, int]) -> None:
        spec = SimpleNamespace(digest=DIGEST, layers=LAYERS)
        self.model = SimpleNamespace(spec=spec)
        self.cluster.slots = tuple(Slot(node, LayerRange(*r)) for node, r in layers.items())
        self.cluster.up = True

    def asked(self, kind: type[Any]) -> dict[str, Any]:
        """What was said since the last look, by node."""
        found = {node: message for node, message in self.said if type(message) is kind}
        self.said.clear()
        return found

    def answer(self) -> Answer:
        return Answer(lambda client, message: bool(self.replies.append(message)), b"c", 1)


@pytest.fixture
def of() -> StandIn:
    of = StandIn()
    for node in ("a", "b", "spare"):
        of.start(node)
    of.up(a=(0, 3), b=(3, 8))
    return of


def stored(node: str, start: int, end: int, changes: dict[str, Any] | None = None) -> msg.KvStored:
    file = {"kv_bits": 0, "codecs": [], "tokens": pack(TOKENS),
            "token_hash": HASH, "start": start, "end": end,
            "bytes": 10, "used": 5.0}  # fmt: skip
    return msg.KvStored(
        node, "i1", DIGEST, f"tcp://127.0.0.1:{start + 1}", [file | (changes or {})]
    )


def everything(of: StandIn) -> None:
    """All is told: layers 0-4 are on the spare, 5-7 on b."""
    of.saved_kv.tick(0.0)
    of.saved_kv.disks.stored(stored("spare", 0, 5))
    of.saved_kv.disks.stored(stored("b", 5, 8))
    of.said.clear()


def test_every_node_is_asked_until_it_has_told(of: StandIn) -> None:
    of.saved_kv.tick(0.0)
    asked = of.asked(msg.DiskQuery)
    assert {(node, m.digest) for node, m in asked.items()} == {
        ("a", DIGEST), ("b", DIGEST), ("spare", DIGEST)
    }  # fmt: skip
    of.saved_kv.disks.stored(stored("a", 0, 3))
    of.saved_kv.tick(ASK_AGAIN_SECONDS - 0.1)
    assert not of.said
    of.saved_kv.tick(ASK_AGAIN_SECONDS)
    assert of.asked(msg.DiskQuery).keys() == {"b", "spare"}
    of.start("a", "i2")  # another process: its address is another too
    of.saved_kv.tick(ASK_AGAIN_SECONDS + 0.1)
    assert of.asked(msg.DiskQuery).keys() == {"a"}
    assert not of.saved_kv.disks.index.entries


def test_what_a_save_has_removed_is_not_offered(of: StandIn) -> None:
    """A stage whose disk is full makes room by itself: after a save it is asked again."""
    everything(of)
    of.keep(SEQUENCE, (7, *TOKENS))
    of.saved_kv.keep(SEQUENCE)
    of.saves()
    of.saved_kv.tick(SURVEY_SECONDS)
    assert of.asked(msg.DiskQuery).keys() == {"a", "b"}, "who has not told, and who has saved"
    of.saved_kv.disks.stored(replace(stored("b", 5, 8), files=[]))
    assert not of.saved_kv.disks.index.entries[ENTRY].covers(LAYERS)
    of.saved_kv.keep(SEQUENCE)
    of.saves()
    of.saved_kv.disks.stored(replace(stored("b", 5, 8), files=[]))  # late, from before that
    of.saved_kv.tick(2 * SURVEY_SECONDS - 0.1)
    assert of.asked(msg.DiskQuery).keys() == {"a"}, "not after every save"
    for survey in (2, 3):
        of.saved_kv.tick(survey * SURVEY_SECONDS)
        assert "b" in of.asked(msg.DiskQuery), "until it has answered"
    of.saved_kv.disks.stored(stored("b", 5, 8))
    of.saved_kv.tick(4 * SURVEY_SECONDS)
    assert of.asked(msg.DiskQuery).keys() == {"a"}


def test_another_model_has_other_entries(of: StandIn) -> None:
    everything(of)
    assert of.saved_kv.disks.index.entries.keys() == {ENTRY}
    of.model.spec.digest = "cd" * 32
    of.saved_kv.tick(1.0)
    assert not of.saved_kv.disks.index.entries
    assert len(of.asked(msg.DiskQuery)) == 3
    of.saved_kv.disks.stored(stored("a", 0, 3))
    assert not of.saved_kv.disks.index.entries


@pytest.mark.parametrize(
    "changes",
    [{"tokens": b"abc"}, {"tokens": "text"}, {"start": 4, "end": 3}, {"start": -1}, {"used": None},
     {"token_hash": "x"}, {"kv_bits": True}, {"codecs": [[0, "fp8"]]}],
)  # fmt: skip
def test_what_is_no_file_is_not_listed(changes: dict[str, Any], of: StandIn) -> None:
    of.saved_kv.tick(0.0)
    of.saved_kv.disks.stored(stored("a", 0, 3, changes))
    assert not of.saved_kv.disks.index.entries


def test_what_is_listed(of: StandIn) -> None:
    everything(of)
    (row,) = of.saved_kv.disks.views()
    assert row.pop("idle") > 0
    assert row == {
        "sequence": None, "entry": ENTRY, "state": "saved", "tokens": 100, "bytes": 20,
        "kv_bits": 0, "codecs": [],
        "nodes": ["b", "spare"], "complete": True, "pinned": False, "age": None,
        "hits": None, "shared_with": [], "names": [],
    }  # fmt: skip
    disks = of.saved_kv.disks
    assert [disks.node_bytes(node) for node in ("a", "b", "spare")] == [0, 10, 10]
    assert disks.saved_bytes(Fidelity(), TOKENS) == 20
    assert (
        disks.saved_bytes(Fidelity(8), TOKENS) is disks.saved_bytes(Fidelity(), TOKENS[:-1]) is None
    )


def test_a_load_names_who_else_has_the_layers(of: StandIn) -> None:
    everything(of)
    outcomes: list[Outcome] = []
    of.saved_kv.load(of.saved_kv.disks.index.entries[ENTRY], outcomes.append)
    asked = of.asked(msg.LoadKv)
    assert {node: [(s["address"], s["start"], s["end"]) for s in m.sources]
            for node, m in asked.items()} == {
        "a": [("tcp://127.0.0.1:1", 0, 5), ("tcp://127.0.0.1:6", 5, 8)],
        "b": [("tcp://127.0.0.1:1", 0, 5)],
    }  # fmt: skip
    assert {(m.sequence, m.tokens, m.token_hash) for m in asked.values()} == {(NEW, 100, HASH)}
    of.saved_kv.restored(msg.KvRestored(asked["a"].query, "a", 100, 7, 0.1, ""))
    of.saved_kv.restored(msg.KvRestored(asked["a"].query, "a", 100, 7, 0.1, ""))  # said twice
    of.saved_kv.restored(msg.KvRestored(asked["a"].query + 1, "b", 100, 7, 0.1, ""))  # of another
    assert not outcomes
    of.saved_kv.restored(msg.KvRestored(asked["b"].query, "b", 100, 8, 0.1, ""))
    (outcome,) = outcomes
    assert (outcome.why, outcome.nbytes, outcome.tokens) == ("", 15, 100)
    assert of.kept == {NEW: TOKENS}
    assert not of.notes


def test_when_one_stage_cannot_none_is_to_hold_it(of: StandIn) -> None:
    everything(of)
    outcomes: list[Outcome] = []
    of.saved_kv.load(of.saved_kv.disks.index.entries[ENTRY], outcomes.append)
    query = of.asked(msg.LoadKv)["a"].query
    of.saved_kv.restored(msg.KvRestored(query, "a", 100, 7, 0.1, ""))
    of.saved_kv.restored(msg.KvRestored(query, "b", 0, 0, 0.1, "layers [3] are not to be had"))
    assert outcomes[0].why == "b: layers [3] are not to be had"
    assert of.kept == {}
    assert NEW not in of.scheduler.residency.memory
    assert of.notes == [f"kv-not-loaded saved entry {ENTRY[:8]}: {outcomes[0].why}"]


def test_who_is_silent_is_not_waited_for_for_ever(
    of: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(of)
    outcomes: list[Outcome] = []
    monkeypatch.setattr("daemon.coordinator.saved_kv.time.monotonic", lambda: 100.0)
    of.saved_kv.load(of.saved_kv.disks.index.entries[ENTRY], outcomes.append)
    of.saved_kv.tick(100.0 + LOAD_SECONDS - 1)
    assert not outcomes
    of.saved_kv.tick(100.0 + LOAD_SECONDS)
    assert outcomes[0].why == "a did not answer; b did not answer"
    of.saved_kv.save(Held(SEQUENCE, Fidelity(), TOKENS), outcomes.append)
    of.saved_kv.pipeline_down()
    assert outcomes[1].why == "the pipeline went down meanwhile"


def test_what_could_not_be_read_is_asked_for_again_and_later(
    of: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(of)
    now = 100.0
    monkeypatch.setattr("daemon.coordinator.saved_kv.time.monotonic", lambda: now)
    went_on: list[int] = []

    def ask() -> bool:
        """Whether it waits."""
        of.before(0, [*TOKENS, 1, 2], lambda: went_on.append(1))
        return bool(of.said)

    assert ask()
    of.restored(of.asked(msg.LoadKv)["a"].query, "a disk was pulled out")
    of.saved_kv.tick(now)
    assert of.asked(msg.DiskQuery).keys() == {"a", "b", "spare"}
    assert not ask(), "not each request"
    of.saved_kv.load(of.saved_kv.disks.index.entries[ENTRY], lambda _: None)
    assert of.asked(msg.LoadKv), "an operator may try"
    of.saved_kv.pipeline_down()
    now += RETRY_SECONDS
    assert ask()
    of.restored(of.asked(msg.LoadKv)["a"].query)
    assert (len(went_on), list(of.kept.values())) == (3, [TOKENS])


def test_a_pipeline_that_goes_down_says_nothing_of_the_files(of: StandIn) -> None:
    everything(of)
    for _ in range(2):
        of.before(0, [*TOKENS, 1, 2], lambda: None)
        assert of.asked(msg.LoadKv), "again as soon as it is up"
        of.saved_kv.pipeline_down()
    assert not of.notes
    assert of.saved_kv.disks.index.entries[ENTRY].covers(LAYERS)


def test_nothing_is_read_twice_at_a_time(of: StandIn) -> None:
    everything(of)
    outcomes: list[Outcome] = []
    for _ in range(2):
        of.saved_kv.load(of.saved_kv.disks.index.entries[ENTRY], outcomes.append)
    assert len(of.said) == 2, "once per stage"
    of.restored(of.asked(msg.LoadKv)["a"].query)
    assert [outcome.why for outcome in outcomes] == ["", ""]


def test_a_save_counts_where_it_went_well(of: StandIn) -> None:
    of.saved_kv.tick(0.0)
    outcomes: list[Outcome] = []
    of.saved_kv.save(Held(SEQUENCE, Fidelity(), TOKENS), outcomes.append)
    asked = of.asked(msg.SaveKv)
    assert {(node, m.sequence, m.length) for node, m in asked.items()} == {
        ("a", SEQUENCE, 100), ("b", SEQUENCE, 100)
    }  # fmt: skip
    of.saved_kv.saved(msg.KvSaved(asked["a"].query, "a", 100, 30, 0.1, ""))
    of.saved_kv.saved(msg.KvSaved(asked["b"].query, "b", 0, 0, 0.0, "/x/y: the disk is full"))
    assert outcomes[0].why == "b: /x/y: the disk is full"
    assert of.notes == [f"kv-not-saved {SEQUENCE.hex()[:8]}: {outcomes[0].why}"]
    (entry,) = of.saved_kv.disks.index.entries.values()
    assert entry.entry == ENTRY
    assert not entry.covers(LAYERS)
    of.saved_kv.save(Held(SEQUENCE, Fidelity(), TOKENS))
    query = of.asked(msg.SaveKv)["a"].query
    for node in ("a", "b"):
        of.saved_kv.saved(msg.KvSaved(query, node, 100, 30, 0.1, ""))
    assert entry.covers(LAYERS)
    assert len(of.notes) == 1


def test_verbs(of: StandIn) -> None:
    everything(of)
    of.keep(SEQUENCE, TOKENS[:80])
    of.verbs.save(of.answer(), {"sequence": SEQUENCE.hex()[:4].upper()})
    asked = of.asked(msg.SaveKv)
    assert asked["b"].length == 80
    for node in ("a", "b"):
        of.saved_kv.saved(msg.KvSaved(asked["a"].query, node, 80, 30, 0.1, ""))
    of.verbs.load(of.answer(), {"entry": ENTRY[:6]})
    of.restored(of.asked(msg.LoadKv)["a"].query, "no")
    saved, failed = of.replies
    assert (saved.data["sequence"], saved.data["tokens"], saved.data["bytes"]) == (
        SEQUENCE.hex(), 80, 60
    )  # fmt: skip
    assert (failed.code, failed.why) == (1, "b: no")


def test_verbs_take_a_conversation(of: StandIn) -> None:
    everything(of)
    of.keep(SEQUENCE, TOKENS[:80])
    of.verbs.save(of.answer(), {"conversation": "talk"})
    assert of.asked(msg.SaveKv)["a"].sequence == SEQUENCE
    of.keep(b"k" * 16, TOKENS[10:])
    with pytest.raises(Refusal, match="no conversation 6b: it was forgotten, or never was"):
        of.verbs.save(of.answer(), {"conversation": "6b"})  # which an id begins with
    assert of.scheduler.residency.evict(SEQUENCE)
    with pytest.raises(Refusal, match="cannot save talk: the stages hold nothing of it"):
        of.verbs.save(of.answer(), {"conversation": "talk"})
    turn = SimpleNamespace(tokens=(*TOKENS, 4))
    of.conversation = SimpleNamespace(name="talk", fidelity=Fidelity(), turn=turn)
    of.verbs.load(of.answer(), {"conversation": "talk"})
    assert of.asked(msg.LoadKv)["a"].tokens == len(TOKENS)
    of.saved_kv.pipeline_down()
    of.replies.clear()
    for arguments in ({"conversation": "talk"}, {"entry": ENTRY[:4]}):
        of.verbs.load(of.answer(), {**arguments, "dry_run": True})
        assert of.replies.pop().data == {
            "sequence": None, "entry": ENTRY, "tokens": 100, "bytes": 20, "seconds": None
        }  # fmt: skip
    of.cluster.up = False  # while the conversation was read
    of.verbs.load(of.answer(), {"conversation": "talk"})
    (refused,) = of.replies
    assert (refused.code, refused.what, refused.why) == (3, "cannot load", "x")
    assert not of.said
    of.cluster.up = True
    turn.tokens = (7, *TOKENS)
    of.verbs.load(of.answer(), {"conversation": "talk"})
    assert of.replies[-1].what == "nothing of talk is saved"


def test_verbs_refuse_what_cannot_be(of: StandIn) -> None:
    everything(of)
    of.keep(SEQUENCE, TOKENS[:80])
    of.keep(b"s" * 15 + b"t", (*TOKENS[:20], 1, 2, 3))
    for arguments, why in (({"sequence": "73"}, "2 begin so"), ({"sequence": "ff"}, "none"),
                           ({"sequence": (b"s" * 15 + b"t").hex()}, "23 tokens")):  # fmt: skip
        with pytest.raises(Refusal, match=why):
            of.verbs.save(of.answer(), arguments)
    of.cluster.up = False
    of.verbs.load(of.answer(), {"entry": ENTRY})
    assert of.replies[-1].what == "cannot load"
    with pytest.raises(Refusal, match="cannot save"):
        of.verbs.save(of.answer(), {"sequence": SEQUENCE.hex()})
    assert not of.said


# --- around requests ---


def test_a_request_waits_for_what_is_saved_of_it(of: StandIn) -> None:
    everything(of)
    went_on: list[str] = []
    of.before(0, [*TOKENS, 1, 2], lambda: went_on.append("first"))
    of.before(0, [*TOKENS, 7], lambda: went_on.append("second"))
    of.before(0, [9, *TOKENS], lambda: went_on.append("other"))
    of.before(8, [*TOKENS, 1, 2], lambda: went_on.append("other type"))
    assert went_on == ["other", "other type"]
    assert len([m for _, m in of.said if isinstance(m, msg.LoadKv)]) == 2  # once per stage
    of.restored(of.asked(msg.LoadKv)["a"].query)
    assert went_on[2:] == ["first", "second"]
    assert of.kept == {NEW: TOKENS}
    of.before(0, [*TOKENS, 1, 2], lambda: went_on.append("held"))
    assert went_on[-1] == "held"
    assert not of.said


def test_one_that_fails_strands_no_other(of: StandIn) -> None:
    everything(of)
    went_on: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    of.before(0, [*TOKENS, 1, 2], fail)
    of.before(0, [*TOKENS, 7], lambda: went_on.append("second"))
    of.before(0, [*TOKENS, 8], lambda: went_on.append("third"))
    with pytest.raises(ZeroDivisionError):
        of.restored(of.asked(msg.LoadKv)["a"].query)
    assert went_on == ["second", "third"]


@pytest.mark.parametrize("trouble", ["a stage cannot", "pipeline down", "no memory"])
def test_a_request_goes_on_whatever_happens(trouble: str, of: StandIn) -> None:
    everything(of)
    went_on: list[int] = []
    if trouble == "no memory":
        footprint = Footprint(1 << 20, 0)
        of.scheduler.residency.memory = Memory((StageMemory(1 << 20, {0: footprint}),))
    of.before(0, [*TOKENS, 1, 2], lambda: went_on.append(1))
    if trouble == "a stage cannot":
        of.restored(of.asked(msg.LoadKv)["a"].query, "damaged")
    elif trouble == "pipeline down":
        of.saved_kv.pipeline_down()
    assert went_on == [1]
    assert not of.kept
    assert len(of.scheduler.residency.memory) == 0


def test_little_more_than_is_held_is_not_read(of: StandIn) -> None:
    everything(of)
    of.keep(SEQUENCE, TOKENS[:60])
    went_on: list[int] = []
    of.before(0, [*TOKENS, 1, 2], lambda: went_on.append(1))
    assert went_on == [1]
    assert not of.said


def test_a_turn_is_saved_once_and_replaces_those_before(of: StandIn) -> None:
    of.saved_kv.tick(0.0)
    of.said.clear()
    of.keep(SEQUENCE, TOKENS[:80])
    of.saved_kv.keep(SEQUENCE)
    of.saves()
    (first,) = of.saved_kv.disks.index.entries
    of.saved_kv.keep(SEQUENCE)
    assert not of.said
    of.keep(NEW, TOKENS)
    of.saved_kv.keep(NEW)
    of.saves(why="the disk is full")
    assert len(of.saved_kv.disks.index.entries) == 2
    of.saved_kv.keep(NEW)
    of.saves(why="the disk is full")
    assert len(of.notes) == 1  # said once
    of.saved_kv.keep(NEW)
    query = of.asked(msg.SaveKv)["a"].query
    for node in ("a", "b"):
        of.saved_kv.saved(msg.KvSaved(query, node, 100, 30, 0.1, ""))
    assert of.saved_kv.disks.index.entries.keys() == {ENTRY}
    drops = of.asked(msg.DropKv)
    assert {(node, m.digest, m.entry) for node, m in drops.items()} == {
        ("a", DIGEST, first), ("b", DIGEST, first)
    }  # fmt: skip


def dropped(of: StandIn) -> set[tuple[str, str, str]]:
    found = {(node, m.digest, m.entry) for node, m in of.said if isinstance(m, msg.DropKv)}
    of.said.clear()
    return found


def test_what_is_forgotten_is_deleted_on_every_node(of: StandIn) -> None:
    everything(of)
    queries: list[int] = []
    for sequence, tokens in ((SEQUENCE, (9, *TOKENS)), (b"k" * 16, (*TOKENS, 1))):
        of.keep(sequence, tokens)
        of.saved_kv.keep(sequence)
        queries.append(of.asked(msg.SaveKv)["a"].query)
    other = Held(SEQUENCE, Fidelity(), (9, *TOKENS)).identity(DIGEST).entry
    saving = Held(SEQUENCE, Fidelity(), (*TOKENS, 1)).identity(DIGEST).entry
    of.saved_kv.forget(DIGEST, Fidelity(), (*TOKENS, 1, 2))
    nodes = ("a", "b", "spare")
    assert dropped(of) >= {(node, DIGEST, entry) for node in nodes for entry in (ENTRY, saving)}
    assert not of.saved_kv.disks.index.entries
    for query in queries:
        for node in ("a", "b"):
            of.saved_kv.saved(msg.KvSaved(query, node, 100, 30, 0.1, ""))
    assert dropped(of) == {(node, DIGEST, saving) for node in nodes}, "when it is written at last"
    assert of.saved_kv.disks.index.entries.keys() == {other}
    of.saved_kv.forget("cd" * 32, Fidelity(8), TOKENS)
    left = Held(SEQUENCE, Fidelity(8), TOKENS[:-1]).identity("cd" * 32).entry
    assert ("spare", "cd" * 32, left) in dropped(of), "of a model that is not loaded"


def test_what_is_short_unknown_or_unwanted_is_not_saved(of: StandIn) -> None:
    of.saved_kv.tick(0.0)
    of.said.clear()
    of.keep(SEQUENCE, TOKENS[:30])
    of.saved_kv.keep(SEQUENCE)
    of.saved_kv.keep(NEW)
    of.keep(NEW, TOKENS)
    of.config.node.kv_disk = 0
    of.saved_kv.keep(NEW)
    assert not of.said
