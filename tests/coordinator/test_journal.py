"""The journal: whatever happens to its file, no request fails, and nothing wrong is believed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest

from daemon.coordinator import journal as module
from daemon.coordinator.journal import LEAST_BYTES, MOST_TRIES, RETRY_SECONDS, Journal
from daemon.coordinator.journal_file import RecordFile, read_records
from daemon.coordinator.journalled import End, Journalled
from daemon.coordinator.running_turn import RunningTurn
from daemon.coordinator.turns import Prompt
from daemon.fidelity import Fidelity
from daemon.sampling import SamplingParams
from daemon.scheduler.request import Request
from transports.codecs.layout import Codec

A, B = b"a" * 16, b"b" * 16
END = End({"text": "…", "finish_reason": "length"})


def entry(sequence: bytes = A, prompt: int = 3, **options: Any) -> Journalled:
    """With every option set."""
    params = SamplingParams(temperature=0.5, seed=9, logit_bias={4: -1.0}, **options)
    fidelity = Fidelity(8, ((2, Codec.FP8),))
    request = Request(sequence, tuple(range(prompt)), 50, params, frozenset({7, 1}), fidelity)
    messages = ({"role": "user", "content": "é"},)
    text = Prompt("text é", request.prompt)
    turn = RunningTurn("talk", "m", "digest", False, fidelity, messages, text, 3)
    return Journalled(request, "digest", ("STOP",), True, 1000.5, turn)


class Book:
    """A journal, and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"
        self.notes: list[str] = []
        self.journal = Journal(self.path, self.notes.append)
        self.left = self.journal.open()

    def begin(self, *entries: Journalled) -> None:
        for one in entries:
            self.journal.begin(one)

    def give(self, one: Journalled, *tokens: int, logprobs: tuple[Any, ...] = ()) -> None:
        one.tokens += tokens
        one.logprobs += logprobs
        self.journal.given([(one, tokens, logprobs)])
        self.journal.check_integrity()


def test_what_was_told_is_there_for_the_next(tmp_path: Path) -> None:
    book, a, b = Book(tmp_path), entry(A, logprobs=1), entry(B)
    book.begin(a, b)
    a.ttft = 0.25
    book.give(a, 5, 6, logprobs=([-0.5, [[5, -0.5]]], [-1.0, []]))
    book.give(b, 8)
    a.tries = 0
    (first, second) = Book(tmp_path).left
    a.tries = b.tries = 1
    assert first == a
    assert second == b
    assert os.stat(book.path).st_mode & 0o777 == 0o600


def test_it_is_with_the_system_when_the_call_returns(tmp_path: Path) -> None:
    """Not in this process, which may be killed now."""
    book, a = Book(tmp_path), entry()
    book.begin(a)
    before = book.path.stat().st_size
    book.give(a, 5)
    assert before < book.path.stat().st_size < before + 64


def test_all_that_comes_at_once_is_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, a, b = Book(tmp_path), entry(A), entry(B)
    book.begin(a, b)
    writes, write = [], os.write
    monkeypatch.setattr(os, "write", lambda *args: writes.append(1) or write(*args))
    book.journal.given([(a, (1,), ()), (b, (2, 3), ())])
    assert len(writes) == 1


def test_what_has_ended_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    book, a = Book(tmp_path), entry()
    book.begin(a)
    a.end, a.unsaved = END, True
    book.journal.ended(a)
    (found,) = Book(tmp_path).left
    assert (found.end, found.unsaved, found.tries) == (END, True, 0)
    again = Book(tmp_path)
    again.journal.saved(A)
    (found,) = Book(tmp_path).left
    assert not found.unsaved
    again = Book(tmp_path)
    again.journal.forget(A)
    assert not Book(tmp_path).left


def test_a_failure_is_kept_as_it_was(tmp_path: Path) -> None:
    book, a = Book(tmp_path), entry()
    book.begin(a)
    a.end = End(None, (1, "what", "why", "todo"))
    book.journal.ended(a)
    assert Book(tmp_path).left[0].end == a.end


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_tail_costs_what_stands_in_it(tmp_path: Path, cut: int) -> None:
    book, a = Book(tmp_path), entry()
    book.begin(a)
    book.give(a, 5)
    book.give(a, 6)
    os.truncate(book.path, book.path.stat().st_size - cut)
    after = Book(tmp_path)
    assert [one.tokens for one in after.left] == [[5]]
    assert "torn at byte" in after.notes[0]
    assert [one.tokens for one in Book(tmp_path).left] == [[5]], "and is whole again"


def test_damage_in_the_middle_ends_it_there(tmp_path: Path) -> None:
    book, a, b = Book(tmp_path), entry(A), entry(B)
    book.begin(a)
    middle = book.path.stat().st_size
    book.begin(b)
    book.give(a, 5)
    data = bytearray(book.path.read_bytes())
    data[middle + 30] ^= 1
    book.path.write_bytes(data)
    after = Book(tmp_path)
    assert [(one.sequence, one.tokens) for one in after.left] == [(A, [])]
    assert f"damaged at byte {middle}" in after.notes[0]


@pytest.mark.parametrize(
    "record",
    [
        msgpack.packb((0, {"sequence": b"short"})),
        msgpack.packb((0, entry().to_wire() | {"prompt": b"123"})),
        msgpack.packb((0, entry().to_wire() | {"prompt": b""})),
        msgpack.packb((0, entry().to_wire() | {"max_tokens": "5"})),
        msgpack.packb((0, entry().to_wire() | {"sampling": {"heat": 1}})),
        msgpack.packb((1, [[A, b"123", [], None]])),
        msgpack.packb((1, 5)),
        msgpack.packb((9, None)),
        msgpack.packb([1, 2, 3]),
        msgpack.packb(7),
        b"\xc1",
        b"",
    ],
)
def test_a_record_that_is_none_is_not_believed(tmp_path: Path, record: bytes) -> None:
    book = Book(tmp_path)
    book.begin(entry())
    good = [*read_records(book.path, 1 << 20)[0], record]
    RecordFile(book.path, good).close()
    after = Book(tmp_path)
    assert [one.sequence for one in after.left] == [A]
    assert "a record is wrong" in after.notes[0]


class Disk:
    """Takes no more than `room` bytes of each write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 0
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        return self._write(file, data[: self.room])


@pytest.mark.parametrize("room", [0, 5])
def test_a_full_disk_costs_its_use_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    book, a = Book(tmp_path), entry()
    book.begin(a)
    with monkeypatch.context() as context:
        disk = Disk(context)
        disk.room = room
        book.give(a, 5)
        book.give(a, 6)
        book.journal.tick(RETRY_SECONDS)
        assert not book.path.exists(), "what it says is not all that was told"
        assert "cannot be written" in book.notes[0]
        assert "would lose what runs" in book.notes[0]
    book.journal.tick(RETRY_SECONDS + 1)
    assert not book.path.exists(), "not tried again at once"
    assert len(book.notes) == 1
    book.journal.tick(2 * RETRY_SECONDS)
    book.give(a, 7)
    assert [one.tokens for one in Book(tmp_path).left] == [[5, 6, 7]]


def test_a_folder_that_cannot_be_written_is_no_reason_to_end(tmp_path: Path) -> None:
    (tmp_path / "journal.new").mkdir()
    book, a = Book(tmp_path), entry()
    book.begin(a)
    book.give(a, 5)
    assert len(book.notes) == 1


def test_it_is_written_anew_when_most_of_it_has_gone(tmp_path: Path) -> None:
    book, long = Book(tmp_path), entry(B)
    book.begin(long)
    book.give(long, 4)
    for number in range(40):
        one = entry(number.to_bytes(16, "big"), prompt=10_000)
        book.begin(one)
        book.journal.forget(one.sequence)
    assert book.path.stat().st_size > LEAST_BYTES
    book.journal.tick(0.0)
    assert book.path.stat().st_size < 1000
    book.give(long, 5)
    assert [one.tokens for one in Book(tmp_path).left] == [[4, 5]]


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 5000)
    book = Book(tmp_path)
    book.begin(entry(A, prompt=800), entry(B, prompt=800))
    book.give(entry(B), 5)
    assert [one.sequence for one in Book(tmp_path).left] == [A]
    assert "is full" in book.notes[0]
    book = Book(tmp_path)
    book.journal.forget(A)
    book.begin(entry(B, prompt=700))
    assert [one.sequence for one in Book(tmp_path).left] == [B]


def test_answers_and_what_is_told_with_them_are_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest request leaves it: what is left can always be read."""
    monkeypatch.setattr(module, "MOST_BYTES", 20_000)
    monkeypatch.setattr(module, "MOST_READ", 80_000)
    monkeypatch.setattr(module, "LEAST_BYTES", 0)
    book, a, b = Book(tmp_path), entry(A, logprobs=20), entry(B)
    book.begin(a, b)
    top = {"logprob": -0.5, "top": [[5, -0.5]] * 20}
    for _ in range(100):
        book.give(a, 5, logprobs=(top,))
        book.give(b, 5)
        book.journal.tick(0.0)
    assert [text.split(": ")[1] for text in book.notes] == [
        f"a restart would lose {A.hex()[:8]}, the largest in it"
    ]
    assert [(one.sequence, len(one.tokens)) for one in Book(tmp_path).left] == [(B, 100)]


def test_how_it_ended_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 5000)
    book, a, b = Book(tmp_path), entry(A), entry(B)
    book.begin(a, b)
    a.end = End({"text": "x" * 5000})
    book.journal.ended(a)
    assert [one.sequence for one in Book(tmp_path).left] == [B]


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    RecordFile(path, [b"x" * 100]).close()
    assert read_records(path, 50) == ([], "108 bytes, more than 50")
    assert read_records(path, 108) == ([b"x" * 100], "")


def test_who_ends_every_coordinator_is_left_out_in_the_end(tmp_path: Path) -> None:
    Book(tmp_path).begin(entry())
    for _ in range(MOST_TRIES):
        assert len(Book(tmp_path).left) == 1
    after = Book(tmp_path)
    assert not after.left
    assert "is not resumed" in after.notes[0]


def test_a_token_is_progress(tmp_path: Path) -> None:
    Book(tmp_path).begin(entry())
    for _ in range(MOST_TRIES + 2):
        book = Book(tmp_path)
        (a,) = book.left
        book.give(a, 5)
    assert len(Book(tmp_path).left[0].tokens) == MOST_TRIES + 2


def test_the_file_that_was_there_stays_when_another_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    RecordFile(path, [b"old"]).close()
    with monkeypatch.context() as context:
        Disk(context)
        with pytest.raises(OSError, match="No space"):
            RecordFile(path, [b"new"])
    assert read_records(path, 1 << 20) == ([b"old"], "")
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
