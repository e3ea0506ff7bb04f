"""What is written of a conversation, and that nothing else is ever read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.coordinator.answer import Refusal
from daemon.coordinator.archive import Archive
from daemon.coordinator.conversation import Conversation, Damaged, from_text, to_text
from daemon.coordinator.turns import Prompt, Turn
from daemon.fidelity import Fidelity
from transports.codecs.layout import Codec

TALK = Conversation(
    "notes",
    "qwen",
    "abc",
    False,
    Fidelity(8, ((2, Codec.FP8),)),
    ({"role": "user", "content": "größe 🚀"}, {"role": "assistant", "content": "a\n"}),
    Turn(Prompt("größe 🚀", (0, 5, 151_935)), (7, 2**31 - 1), "a\n", False),
    bytes(range(16)),
    3,
    1_700_000_000.25,
)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "deep" / "conversations")
    assert (archive.names(), archive.read("notes")) == ([], None)
    archive.write(TALK)
    archive.write(replace(TALK, turns=4))
    assert archive.names() == ["notes"]
    assert archive.read("notes") == replace(TALK, turns=4)
    assert [path.name for path in archive.path("notes").parent.iterdir()] == ["notes.json"]
    archive.remove("notes")
    archive.remove("notes")
    assert archive.names() == []


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "conversations")
    archive.write(TALK)
    path = archive.path("notes")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_files_of_other_kinds_are_no_conversations(tmp_path: Path) -> None:
    for name in (
        ".hidden.json",
        "notes.json.damaged",
        ".notes.new",
        "a b.json",
        "x" * 65 + ".json",
    ):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.json").mkdir()
    assert Archive(tmp_path).names() == []


@pytest.mark.parametrize("at", [0, 1, 50, -3])
def test_a_cut_file_is_moved_aside(tmp_path: Path, at: int) -> None:
    archive = Archive(tmp_path)
    path = archive.path("notes")
    path.write_text(to_text(TALK)[:at])
    with pytest.raises(Refusal, match="conversation notes cannot be used: its file is damaged"):
        archive.read("notes")
    assert archive.read("notes") is None
    assert [p.name for p in tmp_path.iterdir()] == ["notes.json.damaged"]


def test_what_was_moved_aside_before_stays(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for text in ("first", "second", "third"):
        archive.path("notes").write_text(text)
        with pytest.raises(Refusal, match="damaged"):
            archive.read("notes")
    aside = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert aside == {
        "notes.json.damaged": "first",
        "notes.json.damaged.2": "second",
        "notes.json.damaged.3": "third",
    }


def test_one_that_cannot_be_looked_at_hides_no_other(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write(TALK)
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert archive.names() == ["notes"]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.path("notes").write_bytes(b"\xff\x00")
    with pytest.raises(Refusal, match="damaged"):
        archive.read("notes")


def test_another_conversations_file_is_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write(TALK)
    archive.path("notes").rename(archive.path("other"))
    with pytest.raises(Refusal, match="that of 'notes'"):
        archive.read("other")


def test_every_flipped_character_is_noticed() -> None:
    text = to_text(TALK)
    for at, old in enumerate(text):
        new = "1" if old != "1" else "2"
        changed = text[:at] + new + text[at + 1 :]
        with pytest.raises(Damaged):
            from_text(changed, "notes")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../up"),
        ("raw", 1),
        ("kv_bits", 5),
        ("kv_bits", True),
        ("codecs", [[2, "fp9"]]),
        ("codecs", [[2, "fp8"], [1, "fp8"]]),
        ("turns", "3"),
        ("updated", None),
        ("sequence", "00"),
        ("messages", {"role": "user"}),
        ("messages", [{"role": "user"}]),
        ("prompt", {"text": "x", "tokens": ""}),
        ("prompt", {"text": "x", "tokens": "AAA="}),
        ("prompt", {"text": "x", "tokens": "/////w=="}),
        ("prompt", {"text": "x", "tokens": "!"}),
        ("reply", {"text": 1, "tokens": "", "cut": False}),
        ("reply", []),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused_whatever_the_checksum(
    key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = json.loads(to_text(TALK))
    whole["conversation"][key] = value
    monkeypatch.setattr("daemon.coordinator.conversation._checksum", lambda _: whole["sha256"])
    with pytest.raises(Damaged):
        from_text(json.dumps(whole), "notes")


@pytest.mark.parametrize("text", ["[1]", "null", '{"version": 1}', '{"version": 2}', "[" * 100_000])
def test_other_documents_are_refused(text: str) -> None:
    with pytest.raises(Damaged):
        from_text(text, "notes")
