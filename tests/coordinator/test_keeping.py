"""The verbs about what is kept for reuse: what they answer, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.coordinator.answer import Answer, Refusal
from daemon.coordinator.arguments import BadArguments
from daemon.coordinator.disks import Disks
from daemon.coordinator.keeping import Keeping
from daemon.coordinator.process import Coordinator
from daemon.fidelity import Fidelity
from daemon.scheduler.stored import Told, pack
from tests.scheduler.harness import PROMPT, A, B, C, Harness, request


class Heard:
    """An answer that is only looked at."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def reply(self, data: dict[str, Any]) -> bool:
        self.data = data
        return True


class Names:
    """Of conversations: the last turn of "talk" is A."""

    def names(self) -> dict[bytes, list[str]]:
        return {A: ["talk"]}

    def sequence_of(self, name: str) -> bytes | None:
        return {"talk": A, "old": C}.get(name)


class Rig:
    """A is kept; B, forked of it, runs."""

    def __init__(self) -> None:
        self.h = Harness()
        self.h.submit(request(A, 16, max_tokens=1))
        self.h.computed(self.h.frames[-1], 1)
        self.h.submit(request(B, (*PROMPT[:16], 1, 2, 3)))
        slots = [SimpleNamespace(node="m"), SimpleNamespace(node="n")]
        of = SimpleNamespace(
            scheduler=self.h.scheduler,
            cluster=SimpleNamespace(slots=slots),
            perform=self.h.keep,
            model=None,
            clients=SimpleNamespace(conversations=Names()),
        )
        self.disks = Disks(cast(Coordinator, of))
        of.saved_kv = SimpleNamespace(disks=self.disks)
        self.keeping = Keeping(cast(Coordinator, of))

    def asked(self, verb: str, **arguments: Any) -> dict[str, Any]:
        heard = Heard()
        getattr(self.keeping, verb)(cast(Answer, heard), arguments)
        return heard.data


def test_the_view_shows_entries_counters_and_stages() -> None:
    rig = Rig()
    rig.asked("pin", sequence="6161", pinned=True)
    rig.h.computed(rig.h.frames[-1], 4)
    saved = Told("e" * 32, Fidelity(), pack(PROMPT[:16]), 1, 0, 4, 100, 1.0)
    rig.disks.index.saved("n", saved)
    view = rig.keeping.view(5.0)
    b, a, on_disk = view["entries"]
    assert (a["disk_bytes"], b["disk_bytes"], on_disk["entry"]) == (100, None, saved.entry)
    assert [stage["disk_bytes"] for stage in view["stages"]] == [0, 100]
    assert (a["sequence"], a["state"], a["tokens"], a["pinned"]) == (A.hex(), "kept", 16, True)
    assert (b["sequence"], b["state"], b["tokens"], b["pinned"]) == (B.hex(), "running", 19, False)
    assert (a["shared_with"], b["shared_with"]) == ([B.hex()], [A.hex()])
    assert (a["hits"], a["age"], a["idle"], a["kv_bits"], a["names"]) == (1, 5.0, 5.0, 0, ["talk"])
    assert view["counters"]["hit_tokens"] == 16
    assert [(s["stage"], s["node"]) for s in view["stages"]] == [(0, "m"), (1, "n")]
    stage = view["stages"][0]
    assert stage["budget_bytes"] == 1 << 40
    assert stage["kept_bytes"] == 16 + 128
    assert stage["used_bytes"] > stage["kept_bytes"]


def test_pins_keep_and_are_taken_off() -> None:
    rig = Rig()
    assert rig.asked("pin", sequence=A.hex()) == {"sequence": A.hex(), "pinned": True}
    rig.h.computed(rig.h.frames[-1], 4)
    assert A in rig.h.scheduler.residency.index, "else B would do in its place"
    assert rig.asked("evict", sequence="all") == {"evicted": []}
    assert not rig.asked("pin", sequence="61", pinned=False)["pinned"]
    assert rig.asked("evict", sequence="all") == {"evicted": [A.hex()]}


def test_a_pinned_one_goes_when_it_is_named() -> None:
    rig = Rig()
    rig.asked("pin", sequence="61")
    rig.h.computed(rig.h.frames[-1], 4)
    assert rig.asked("evict", sequence="6161") == {"evicted": [A.hex()]}


def test_what_is_in_use_is_not_evicted() -> None:
    rig = Rig()
    with pytest.raises(Refusal, match="a request is beginning with it"):
        rig.asked("evict", sequence="61")
    rig.asked("pin", sequence="61")
    rig.h.computed(rig.h.frames[-1], 4)
    with pytest.raises(Refusal, match="it runs"):
        rig.asked("evict", sequence="62")


def test_unclear_names_are_refused() -> None:
    rig = Rig()
    for verb in ("pin", "evict"):
        with pytest.raises(Refusal, match="nothing is kept of 77"):
            rig.asked(verb, sequence="77")
        for arguments in ({}, {"sequence": ""}, {"sequence": 5}):
            with pytest.raises(BadArguments):
                rig.asked(verb, **arguments)
    rig.asked("pin", sequence="61")
    rig.h.computed(rig.h.frames[-1], 4)
    with pytest.raises(BadArguments, match="beginning of 2"):
        rig.asked("evict", sequence="6")


def test_a_conversation_means_the_sequence_of_its_last_turn() -> None:
    rig = Rig()
    assert rig.asked("pin", conversation="talk", pinned=True)["sequence"] == A.hex()
    assert [entry["names"] for entry in rig.keeping.view(5.0)["entries"]] == [["talk"]]
    for unknown in ("old", "other"):
        with pytest.raises(Refusal, match=f"nothing is kept of {unknown}"):
            rig.asked("evict", conversation=unknown)
