"""Conversations from `generate` to the disk and back, at a coordinator without a cluster."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from daemon.coordinator import conversations
from daemon.coordinator.tokenizer import Tokenizer
from daemon.fidelity import Fidelity
from daemon.scheduler.request import FinishReason
from tests.coordinator import tokenizers as made
from tests.coordinator.stand_in import StandIn


@pytest.fixture
def of(tmp_path: Path, chatml: Tokenizer) -> StandIn:
    stand_in = StandIn(tmp_path)
    stand_in.serve(chatml)
    return stand_in


def spelt(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Character by character, as only a model writes."""
    return tuple(t for char in text for t in tokenizer.encode_more(char))


def say(of: StandIn, tokenizer: Tokenizer, text: str, reply: str, **options: object) -> None:
    """A whole turn of `talk`."""
    assert of.turn("talk", prompt=text, **options) is None
    of.deliver(spelt(tokenizer, reply))
    of.end()


def test_every_turn_begins_with_the_tokens_before(of: StandIn, chatml: Tokenizer) -> None:
    held: tuple[int, ...] = ()
    told = []
    for number, (question, reply) in enumerate([("one", "a b"), ("two", "c"), ("three", "")], 1):
        assert of.turn("talk", prompt=question) is None
        told.append({"role": "user", "content": question})
        prompt = of.prompt()
        assert prompt[: len(held)] == held
        assert chatml.text(prompt) == chatml.render(told)
        of.deliver(spelt(chatml, reply))
        said = of.end()
        assert said["finish_reason"] == "stop"
        told.append({"role": "assistant", "content": reply})
        held = (*prompt, *spelt(chatml, reply))
        (row,) = of.ask(of.conversations.listing)["conversations"]
        assert (row["turns"], row["tokens"]) == (number, len(held))
        assert of.conversations.sequence_of("talk") == bytes.fromhex(said["sequence"])
        assert of.turns_kept[-1] == bytes.fromhex(said["sequence"])
    assert of.conversations.names() == {bytes.fromhex(said["sequence"]): ["talk"]}


def test_its_first_turn_is_a_request_like_any(of: StandIn, chatml: Tokenizer) -> None:
    for arguments in ({"prompt": "hi"}, {"prompt": "hi", "raw": True}):
        of.ask(of.intake.generate, **arguments)
        alone = of.prompt()
        assert of.kv_bits() == 0
        of.end(FinishReason.CANCELLED)
        of.turn("talk", **arguments)
        assert of.prompt() == alone
        of.end(FinishReason.CANCELLED)


def test_the_stream_says_which_turn_it_is(of: StandIn, chatml: Tokenizer) -> None:
    say(of, chatml, "one", "a")
    of.turn("talk", prompt="two")
    head = of.heard[0].data  # type: ignore[union-attr]
    assert (head["conversation"], head["turn"]) == ("talk", 2)


def test_a_raw_text_goes_on(of: StandIn, chatml: Tokenizer) -> None:
    say(of, chatml, "def f", "oo(): p", raw=True)
    assert of.turn("talk", prompt="ass") is None, "raw, as it began"
    assert of.prompt() == (
        *chatml.encode("def f"),
        *spelt(chatml, "oo(): p"),
        *chatml.encode_more("ass"),
    )
    of.end()
    refused = of.turn("talk", prompt="x", raw=False)
    assert "conversation talk is raw: it goes on as it began; use --raw" in refused


def test_two_turns_at_once_are_refused(of: StandIn, chatml: Tokenizer) -> None:
    assert of.turn("talk", prompt="one") is None
    assert "conversation talk is busy" in of.turn("talk", prompt="two")
    assert "conversation talk is busy" in of.ask(of.conversations.forget, conversation="talk")
    of.end()
    assert of.turn("talk", prompt="three") is None


def test_what_was_given_before_a_cancel_stays(of: StandIn, chatml: Tokenizer) -> None:
    of.turn("talk", prompt="one")
    of.deliver(spelt(chatml, "a b"))
    of.end(FinishReason.CANCELLED)
    of.turn("talk", prompt="two")
    assert "a b<|im_end|>" in chatml.text(of.prompt())


def test_a_client_that_goes_keeps_what_it_was_given(of: StandIn, chatml: Tokenizer) -> None:
    of.turn("talk", prompt="one")
    of.deliver(spelt(chatml, "a"))
    of.connected = False
    of.deliver(spelt(chatml, "b"))
    assert "busy" in of.turn("talk", prompt="two"), "it may come back"
    of.nobody_comes_back()
    of.connected = True
    assert of.turn("talk", prompt="two") is None
    assert "ab<|im_end|>" in chatml.text(of.prompt())


def test_cancelled_before_anything_came_it_is_what_it_was(of: StandIn, chatml: Tokenizer) -> None:
    say(of, chatml, "one", "a")
    before = of.conversations.sequence_of("talk")
    of.turn("talk", prompt="two")
    of.end(FinishReason.CANCELLED)
    assert of.conversations.sequence_of("talk") == before
    of.turn("talk", prompt="three")
    assert "two" not in chatml.text(of.prompt())


@pytest.mark.parametrize("reason", [FinishReason.FAILED, FinishReason.CONTEXT])
def test_a_turn_that_failed_leaves_it_as_it_was(
    of: StandIn, chatml: Tokenizer, reason: FinishReason
) -> None:
    say(of, chatml, "one", "a")
    of.turn("talk", prompt="two")
    of.deliver(spelt(chatml, "lost"))
    assert "the request failed" in of.end(reason)
    of.turn("talk", prompt="three")
    text = chatml.text(of.prompt())
    assert "lost" not in text
    assert "two" not in text


def test_a_token_without_text_leaves_it_as_it_was(of: StandIn, chatml: Tokenizer) -> None:
    of.turn("talk", prompt="one")
    of.deliver([-5000])
    assert "without text" in of.last()
    assert of.turn("talk", prompt="two") is None


def test_a_stop_string_cuts_what_is_remembered(of: StandIn, chatml: Tokenizer) -> None:
    of.turn("talk", prompt="one", stop=["STOP"])
    of.deliver(spelt(chatml, "a STOP"))
    of.desk.run()
    of.turn("talk", prompt="two")
    assert "a <|im_end|>" in chatml.text(of.prompt())


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_held_back_belongs_to_the_answer(
    of: StandIn, chatml: Tokenizer, gone: bool
) -> None:
    of.turn("talk", prompt="one", stop=["STOP"])
    of.deliver(spelt(chatml, "a ST"))
    if gone:
        of.nobody_comes_back()
    else:
        of.end(FinishReason.LENGTH)
    of.serve(chatml, "another")  # which gets the text, not the tokens
    of.turn("talk", prompt="two")
    assert "a ST<|im_end|>" in chatml.text(of.prompt())


def test_a_restart_goes_on(of: StandIn, chatml: Tokenizer, tmp_path: Path) -> None:
    say(of, chatml, "one", "a b")
    of.turn("talk", prompt="two")
    wanted = of.prompt()
    later = StandIn(tmp_path)
    later.serve(chatml)
    assert later.turn("talk", prompt="two") is None, "at once, before all were read"
    assert later.prompt() == wanted
    later = StandIn(tmp_path)
    assert later.conversations.sequence_of("talk") is None
    later.conversations.scan()
    later.desk.run()
    assert later.conversations.sequence_of("talk") == of.conversations.sequence_of("talk")


def test_a_damaged_file_is_refused_by_name_and_not_again(
    of: StandIn, chatml: Tokenizer, tmp_path: Path
) -> None:
    say(of, chatml, "one", "a")
    path = tmp_path / "conversations" / "talk.json"
    path.write_text(path.read_text()[:-9])
    later = StandIn(tmp_path)
    later.serve(chatml)
    refused = later.turn("talk", prompt="two")
    assert refused.startswith("1 conversation talk cannot be used: its file is damaged")
    assert later.turn("talk", prompt="two") is None
    assert "one" not in chatml.text(later.prompt())


def test_reading_all_at_the_start_says_what_is_damaged(
    of: StandIn, chatml: Tokenizer, tmp_path: Path
) -> None:
    say(of, chatml, "one", "a")
    (tmp_path / "conversations" / "bad.json").write_text("{}")
    later = StandIn(tmp_path)
    later.conversations.scan()
    later.desk.run()
    (note,) = later.notes
    assert note.startswith("conversation-unusable: conversation bad cannot be used")
    rows = later.ask(later.conversations.listing)["conversations"]
    assert [row["name"] for row in rows] == ["talk"]


def test_what_cannot_be_read_is_not_written_over(
    of: StandIn, chatml: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when reading all at the start failed, and not when they could not even be listed."""
    say(of, chatml, "one", "a")
    path = tmp_path / "conversations" / "talk.json"

    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    for broken in ("pathlib.Path.read_text", "daemon.coordinator.archive.os.scandir"):
        with monkeypatch.context() as patched:
            patched.setattr(broken, refuse)
            later = StandIn(tmp_path)
            later.serve(chatml)
            later.conversations.scan()
            later.desk.run()
            if broken.endswith("read_text"):
                (note,) = later.notes
                assert f"{path} cannot be read" in note
                refused = later.turn("talk", prompt="two")
                assert refused == (
                    f"1 conversation talk cannot be used: {path} cannot be read (Input/output "
                    "error); mend that, then ask again"
                )
        assert later.turn("talk", prompt="two") is None, "it can be read again"
        assert "one" in chatml.text(later.prompt())
        later.end(FinishReason.CANCELLED)


def test_a_full_disk_costs_a_warning(of: StandIn, chatml: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "conversations"
    folder.write_text("in the way")
    say(of, chatml, "one", "a")
    say(of, chatml, "two", "b")
    (note,) = of.notes
    assert note.startswith(f"conversation-unsaved: {folder / 'talk.json'} cannot be written")
    (row,) = of.ask(of.conversations.listing)["conversations"]
    assert not row["saved"]
    assert of.turn("talk", prompt="three") is None
    assert "b<|im_end|>" in chatml.text(of.prompt())
    folder.unlink()
    of.deliver(spelt(chatml, "c"))
    of.end()
    (row,) = of.ask(of.conversations.listing)["conversations"]
    assert row["saved"]


def test_memory_is_bounded_when_the_disk_refuses(
    of: StandIn, chatml: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "KEPT", 2)
    (tmp_path / "conversations").write_text("in the way")
    for name in ("a", "b", "c"):
        of.turn(name, prompt="x")
        of.deliver(spelt(chatml, "y"))
        of.end()
    assert any(note.startswith("conversation-lost: a") for note in of.notes)


def test_what_the_desk_did_not_come_to_is_written_at_the_end(
    of: StandIn, chatml: Tokenizer, tmp_path: Path
) -> None:
    of.turn("talk", prompt="one")
    of.deliver(spelt(chatml, "a"))
    (sequence,) = of.scheduler.sequences()
    of.perform(of.scheduler.finish(sequence.id, FinishReason.STOP, 1.0))
    assert not (tmp_path / "conversations").exists()
    of.conversations.close()
    assert (tmp_path / "conversations" / "talk.json").exists()


def test_with_another_model_messages_are_encoded_anew(
    of: StandIn, chatml: Tokenizer, tmp_path: Path
) -> None:
    say(of, chatml, "hello", "world")
    llama = made.sentence_piece(tmp_path / "llama", made.INSTRUCT)
    of.serve(llama, "llama")
    assert of.turn("talk", prompt="more") is None
    told = (("user", "hello"), ("assistant", "world"), ("user", "more"))
    messages = [{"role": role, "content": text} for role, text in told]
    assert of.prompt() == tuple(llama.encode_chat(messages))
    of.end(FinishReason.CANCELLED)
    of.serve(chatml, "other weights, same tokenizer")
    assert of.turn("talk", prompt="more") is None
    assert of.prompt() == tuple(chatml.encode_chat(messages))


def test_a_raw_one_stays_with_its_model(of: StandIn, chatml: Tokenizer, tmp_path: Path) -> None:
    say(of, chatml, "hello", "world", raw=True)
    of.serve(made.sentence_piece(tmp_path / "llama", made.INSTRUCT), "llama")
    refused = of.turn("talk", prompt="more")
    assert "conversation talk is raw, and of another model" in refused
    assert "load qwen" in refused
    of.serve(chatml)
    assert of.turn("talk", prompt="more") is None, "a refused turn ends it nowhere"


def test_its_kv_stays_in_as_many_bits(of: StandIn, chatml: Tokenizer) -> None:
    for given, held in ((8, 8), (None, 8), (0, 0), (None, 0), (4, 4)):
        assert of.turn("talk", prompt="x", kv_bits=given) is None
        assert of.kv_bits() == held
        of.deliver(spelt(chatml, "y"))
        of.end()
    of.serve(chatml, "gemma", obstacle="its heads are too small")
    refused = of.turn("talk", prompt="x")
    assert refused.startswith("2 gemma cannot hold its KV in 4 bits: its heads are too small")
    assert of.turn("talk", prompt="x", kv_bits=0) is None


def test_a_chat_needs_a_template(of: StandIn, chatml: Tokenizer, tmp_path: Path) -> None:
    say(of, chatml, "hello", "world")
    of.serve(made.byte_level(tmp_path / "plain", None), "plain")
    assert "plain has no chat template" in of.turn("talk", prompt="more")


def test_the_system_message_stands_at_the_beginning(of: StandIn, chatml: Tokenizer) -> None:
    def messages(text: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": text}, {"role": "user", "content": "hi"}]

    say_nothing = of.turn("talk", messages=messages("be kind"))
    assert say_nothing is None
    of.deliver(spelt(chatml, "yes"))
    of.end()
    assert "its system message cannot be changed" in of.turn("talk", messages=messages("be rude"))
    assert of.turn("talk", messages=messages("be kind")) is None
    assert chatml.text(of.prompt()).count("be kind") == 1


def test_a_template_that_writes_the_past_anew_is_followed(
    of: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = made.byte_level(tmp_path / "forgetful", made.FORGETFUL)
    of.serve(tokenizer)
    say(of, tokenizer, "one", "a")
    with caplog.at_level(logging.DEBUG, "shardbus"):
        of.turn("talk", prompt="two")
    assert of.prompt() == tuple(tokenizer.encode_chat([{"role": "user", "content": "two"}]))
    assert "its template wrote earlier turns anew" in caplog.text


def test_at_the_contexts_end_it_says_what_to_do(tmp_path: Path, chatml: Tokenizer) -> None:
    of = StandIn(tmp_path, context=32)
    of.serve(chatml)
    say(of, chatml, "one", "a b c d")
    refused = of.turn("talk", prompt="much more of it, more than fits into what is left")
    assert refused.startswith("5 conversation talk has come to the end of the context: the prompt")
    assert "shardctl kv evict talk --forget" in refused
    assert of.turn("talk", prompt="x" * 500).startswith("5 "), "and is not busy after that"


def test_forgotten_it_begins_anew(of: StandIn, chatml: Tokenizer, tmp_path: Path) -> None:
    say(of, chatml, "one", "a")
    assert of.ask(of.conversations.forget, conversation="talk") == {"forgotten": "talk"}
    assert of.conversations.sequence_of("talk") is None
    assert list((tmp_path / "conversations").iterdir()) == []
    assert "no conversation talk" in of.ask(of.conversations.forget, conversation="talk")
    of.turn("talk", prompt="two")
    assert "one" not in chatml.text(of.prompt())


def test_what_is_forgotten_while_it_is_read_stays_forgotten(
    of: StandIn, chatml: Tokenizer, tmp_path: Path
) -> None:
    say(of, chatml, "one", "a")
    later = StandIn(tmp_path)
    later.conversations.scan()
    later.ask(later.conversations.forget, conversation="talk")
    assert later.ask(later.conversations.listing) == {"conversations": []}
    later.serve(chatml)
    assert later.turn("Talk", prompt="two") is None, "the name is free"


def test_its_saved_kv_is_forgotten_too(of: StandIn, chatml: Tokenizer, tmp_path: Path) -> None:
    of.turn("talk", prompt="one", kv_bits=8)
    prompt = of.prompt()
    of.deliver(spelt(chatml, "a b"))
    of.end()
    text = (path := tmp_path / "conversations" / "talk.json").read_text()
    what = ("digest of qwen", Fidelity(8), (*prompt, *spelt(chatml, "a b")))
    later = StandIn(tmp_path)
    for one in (of, later):  # at hand, and on disk only
        path.write_text(text)
        assert one.ask(one.conversations.forget, conversation="talk") == {"forgotten": "talk"}
        assert one.kv_forgotten == [what]
    path.write_text("{}")
    damaged = StandIn(tmp_path)
    assert damaged.ask(damaged.conversations.forget, conversation="talk")["forgotten"] == "talk"
    assert not path.exists()


def test_there_is_a_most_and_case_does_not_tell_names_apart(
    of: StandIn, chatml: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of.turn("talk", prompt="one") is None
    assert "there is a conversation talk" in of.turn("Talk", prompt="x")
    of.deliver(spelt(chatml, "a"))
    of.end()
    assert "there is a conversation talk" in of.turn("Talk", prompt="x")
    monkeypatch.setattr(conversations, "MOST", 1)
    assert "there are 1 conversations" in of.turn("other", prompt="x")
    assert of.turn("talk", prompt="two") is None


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a b", "x" * 65, "ä", "a\n"])
def test_names_are_checked(of: StandIn, name: str) -> None:
    assert "conversation is" in of.turn(name, prompt="x")
