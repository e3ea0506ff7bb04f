"""What a coordinator that was killed left behind is gone on with, and clients find it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon import messages as msg
from daemon.coordinator import resuming
from daemon.coordinator.answer import Answer, Refusal
from daemon.coordinator.streams import RATE_SECONDS
from daemon.coordinator.tokenizer import Tokenizer
from daemon.scheduler import actions as sc
from daemon.scheduler.request import FinishReason
from tests.coordinator import test_conversations
from tests.coordinator.stand_in import StandIn

Start = Callable[[], StandIn]
ID = "ab" * 16


def spelt(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(test_conversations.spelt(tokenizer, text))


@pytest.fixture
def start(tmp_path: Path, chatml: Tokenizer) -> Start:
    """A coordinator on the same state_dir as those before it, which are dead."""

    def begin() -> StandIn:
        of = StandIn(tmp_path)
        of.serve(chatml)
        return of

    return begin


def go_on(of: StandIn) -> None:
    """The model is served."""
    assert of.model is not None
    of.clients.resuming.make_ready(of.model, of.clients.resuming.go_on)
    of.desk.run()


def ask(of: StandIn, **options: Any) -> None:
    wanted = {"prompt": "one", "raw": True, "sequence": ID, **options}
    assert of.ask(of.intake.generate, **wanted) is None, of.last()


def chunks(of: StandIn) -> list[dict[str, Any]]:
    return [m.data for m in of.heard if isinstance(m, msg.Chunk)]


def resume(of: StandIn, tokens: int = 0, sequence: str = ID) -> list[dict[str, Any]]:
    """What the client hears at once, but for its first word."""
    of.request("resume", sequence=sequence, tokens=tokens)
    found = chunks(of)
    assert found[0]["sequence"] == ID
    return found[1:]


def test_it_goes_on_with_its_tokens(start: Start, chatml: Tokenizer) -> None:
    before = start()
    ask(before, stop=["STOP"], max_tokens=50)
    tokens = spelt(chatml, "a ST")
    before.deliver(tokens)
    after = start()
    go_on(after)
    (sequence,) = after.scheduler.sequences()
    assert sequence.history.tokens[sequence.prompt_length :] == tokens
    assert sequence.confirmed == len(sequence.history) - 1, "nothing is computed again"
    assert resume(after, 0) == [{"text": "a ", "tokens": tokens, "logprobs": None}]
    after.heard.clear()
    after.deliver(spelt(chatml, "OP and more"))
    assert chunks(after)[0]["text"] == "", "the stop string began before the restart"
    assert after.last()["finish_reason"] == "stop"
    assert after.last()["output_tokens"] == len(tokens) + 2


def test_characters_of_several_tokens_stay_whole(start: Start, chatml: Tokenizer) -> None:
    whole = spelt(chatml, "é")
    assert len(whole) == 2, "a tokenizer of bytes"
    before = start()
    ask(before)
    before.deliver(whole[:1])
    after = start()
    go_on(after)
    (heard,) = resume(after)
    assert heard["text"] == ""
    after.heard.clear()
    after.deliver(whole[1:])
    assert chunks(after)[0]["text"] == "é"


@pytest.mark.parametrize("have", [0, 1, 3, 9])
def test_a_client_gets_what_it_has_not(start: Start, chatml: Tokenizer, have: int) -> None:
    """Nine: more than is known here, because a machine's failure took the journal's end."""
    tokens = spelt(chatml, "abc")
    before = start()
    ask(before)
    before.deliver(tokens)
    after = start()
    go_on(after)
    heard = resume(after, have)
    assert [t for h in heard for t in h["tokens"]] == tokens[have:]
    assert "".join(h["text"] for h in heard) == "abc"[have:]
    after.heard.clear()
    after.deliver(spelt(chatml, "defghijkl"))
    text = "".join(h["text"] for h in chunks(after))
    assert text == "abcdefghijkl"[max(have, 3) :]


def test_a_client_may_come_before_the_model(start: Start, chatml: Tokenizer) -> None:
    before = start()
    ask(before)
    before.deliver(spelt(chatml, "a"))
    after = start()
    after.request("resume", sequence=ID, tokens=0)
    assert "being loaded" in chunks(after)[0]["waiting"]
    go_on(after)
    assert [c.get("text") for c in chunks(after)[1:]] == [None, "a"]


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [({"max_tokens": 2}, "ab", "length"), ({"stop": ["b"]}, "ab", "stop")],
)
def test_what_only_lacked_its_end_ends(
    start: Start, chatml: Tokenizer, options: dict[str, Any], text: str, reason: str
) -> None:
    before = start()
    ask(before, **options)
    before.scheduler.finish = lambda *args: []  # type: ignore[method-assign]  # it dies here
    before.deliver(spelt(chatml, text))
    after = start()
    go_on(after)
    assert not list(after.scheduler.sequences())
    resume(after)
    assert after.last()["finish_reason"] == reason


def test_the_last_word_is_kept_for_a_while(start: Start, chatml: Tokenizer) -> None:
    before = start()
    ask(before, stop=["STOP"])
    before.deliver(spelt(chatml, "a ST"))
    reply = before.end(FinishReason.LENGTH)
    assert reply["text"] == "ST"
    after = start()
    go_on(after)
    for of in (before, after):
        assert resume(of, 1)[0]["tokens"] == spelt(chatml, "a ST")[1:]
        assert of.last() == reply
    after.streams.tick(float("inf"))
    assert "no request" in after.request("resume", sequence=ID)
    again = start()
    go_on(again)
    assert "no request" in again.request("resume", sequence=ID)


def test_a_failure_is_kept_too(start: Start) -> None:
    before = start()
    ask(before)
    said = before.end(FinishReason.FAILED)
    assert "the request failed" in said
    after = start()
    go_on(after)
    resume(after)
    assert after.last() == said


def test_a_turn_goes_on_and_is_part_of_its_conversation(start: Start, chatml: Tokenizer) -> None:
    before = start()
    ask(before, conversation="talk", raw=False)
    before.deliver(spelt(chatml, "a"))
    after = start()
    go_on(after)
    assert "busy" in after.turn("talk", prompt="two")
    after.deliver(spelt(chatml, "b"))
    after.end()
    assert after.turn("talk", prompt="two") is None
    assert "ab<|im_end|>" in chatml.text(after.prompt())


def test_a_turn_whose_file_was_not_written_is_not_lost(start: Start, chatml: Tokenizer) -> None:
    before = start()
    ask(before, conversation="talk", raw=False, stop=["STOP"])
    before.deliver(spelt(chatml, "a ST"))
    before.desk.run = lambda: None  # type: ignore[method-assign]  # it dies before that
    before.end(FinishReason.LENGTH)
    after = start()
    go_on(after)
    after.serve(chatml, "another")  # which gets the text, not the tokens
    assert after.turn("talk", prompt="two") is None
    assert "a ST<|im_end|>" in chatml.text(after.prompt())
    after.end()
    again = start()
    go_on(again)
    assert again.turn("talk", prompt="three") is None
    assert "two" in chatml.text(again.prompt()), "what is on disk is not what the journal has"


def test_a_conversation_that_was_forgotten_does_not_come_back(
    start: Start, chatml: Tokenizer
) -> None:
    before = start()
    ask(before, conversation="talk", raw=False)
    before.deliver(spelt(chatml, "a"))
    before.end()
    assert before.request("conversation.forget", conversation="talk") == {"forgotten": "talk"}
    after = start()
    go_on(after)
    assert not after.request("conversation.list")["conversations"]


def test_another_client_takes_the_place_of_the_one_before(start: Start, chatml: Tokenizer) -> None:
    of = start()
    ask(of)
    of.heard.clear()
    heard: list[msg.Message] = []
    other = Answer(lambda client, message: heard.append(message) or True, b"other", 9)  # type: ignore[func-returns-value]
    of.clients.resuming.resume(other, {"sequence": ID[:6], "tokens": 0})
    assert of.last().startswith("1 another client has this request now")
    of.heard.clear()
    of.deliver(spelt(chatml, "a"))
    assert not of.heard
    assert heard[-1] == msg.Chunk(9, {"text": "a", "tokens": spelt(chatml, "a"), "logprobs": None})


def test_a_second_one_takes_the_place_while_both_wait_for_the_model(
    start: Start, chatml: Tokenizer
) -> None:
    ask(start())
    after = start()
    after.request("resume", sequence=ID)
    after.request("resume", sequence=ID)
    assert isinstance(after.heard[0], msg.Failure)
    go_on(after)
    assert chunks(after)[-1]["sequence"] == ID


def test_text_that_cannot_be_made_again_is_no_reason_to_serve_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_text(*of: object) -> None:
        raise LookupError("a token without text")

    ask(start())
    after = start()
    after.request("resume", sequence=ID)
    monkeypatch.setattr(resuming, "_streams", without_text)
    go_on(after)
    assert "cannot go on" in after.last()
    assert not after.clients.resuming.left


def test_a_model_that_is_made_ready_twice_changes_nothing(start: Start, chatml: Tokenizer) -> None:
    before = start()
    ask(before, conversation="talk", raw=False)
    before.deliver(spelt(chatml, "a"))
    after = start()
    assert after.model is not None
    after.clients.resuming.make_ready(after.model, lambda ready: None)
    after.desk.run()
    go_on(after)
    after.end()
    assert after.turn("talk", prompt="two") is None
    assert "assistant\na<|im_end|>" in chatml.text(after.prompt())


def test_nobody_comes_back(start: Start) -> None:
    ask(start())
    after = start()
    go_on(after)
    after.nobody_comes_back()
    assert not list(after.scheduler.sequences())
    assert "nobody came back" in after.notes[-1]


def test_with_another_model_it_is_not_gone_on_with(start: Start, chatml: Tokenizer) -> None:
    ask(start())
    after = start()
    after.request("resume", sequence=ID)
    after.serve(chatml, "another")
    go_on(after)
    assert "another model is served now" in after.last()
    assert not start().clients.resuming.left, "also later"


def test_a_model_that_does_not_come_is_not_waited_for_for_ever(start: Start) -> None:
    ask(start())
    after = start()
    after.request("resume", sequence=ID)
    after.clients.resuming.tick(0.0)
    assert after.last() is None
    after.clients.resuming.tick(float("inf"))
    assert "its model is not served" in after.last()


def test_an_id_is_used_once(start: Start) -> None:
    of = start()
    ask(of)
    taken = "a request has this id"
    assert taken in of.request("generate", prompt="two", raw=True, sequence=ID)
    of.end()
    assert taken in of.request("generate", prompt="two", raw=True, sequence=ID), "not yet"
    other = "cd" * 16
    for _ in range(2):  # both at the desk at once
        of.clients.request(
            b"client", msg.Request(msg.PROTOCOL, 1, "generate", {"prompt": "x", "sequence": other})
        )
    assert taken in of.last()
    of.desk.run()
    assert [s.id.hex() for s in of.scheduler.sequences()] == [other]


@pytest.mark.parametrize("sequence", ["ab", "AB" * 16, 5, "zz" * 16])
def test_an_id_that_is_none(start: Start, sequence: object) -> None:
    assert "sequence is" in start().request("generate", prompt="x", sequence=sequence)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({}, "which"), ({"sequence": "ab", "tokens": -1}, "tokens"), ({"sequence": "ab"}, "no req")],
)
def test_what_cannot_be_resumed_is_said(start: Start, arguments: dict[str, Any], word: str) -> None:
    assert word in start().request("resume", **arguments)


def test_who_was_asked_to_end_leaves_nothing(start: Start) -> None:
    before = start()
    ask(before)
    before.streams.close()
    assert "the coordinator has stopped" in before.last()
    assert not start().clients.resuming.left


def test_two_deliveries_at_once_are_written_down_in_order(start: Start, chatml: Tokenizer) -> None:
    """Of one sequence: each is in the journal once."""
    tokens = spelt(chatml, "abcd")
    before = start()
    ask(before)
    sequence = bytes.fromhex(ID)
    parts = [sc.Deliver(sequence, 0, tuple(tokens[:3])), sc.Deliver(sequence, 3, (tokens[3],))]
    before.clients.streams.deliver(parts)
    after = start()
    assert after.clients.resuming.left[sequence].tokens == tokens


def test_a_client_may_come_back_while_its_prompt_is_read(start: Start) -> None:
    """It asks for what it cannot know to have arrived, and does not have to ask anew."""
    of = start()
    wanted = {"prompt": "one", "raw": True, "sequence": ID}
    of.intake.generate(of.answer(), wanted)
    later = Answer(of.say, b"client", 2)
    of.clients.resuming.resume(later, {"sequence": ID})
    assert "another client has this request" in of.last()
    with pytest.raises(Refusal, match="has this id"):
        of.intake.generate(of.answer(), wanted)
    of.desk.run()
    assert [m.request for m in of.heard if isinstance(m, msg.Chunk)] == [2]
    assert not of.clients.intake.preparing


def test_the_rate_is_forgotten_though_nobody_asks_for_it(start: Start, chatml: Tokenizer) -> None:
    of = start()
    ask(of)
    of.deliver(spelt(chatml, "abc"))
    assert of.clients.streams._delivered
    of.clients.streams.tick(time.monotonic() + RATE_SECONDS + 1.0)
    assert not of.clients.streams._delivered
