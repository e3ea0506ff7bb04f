"""The next prompt begins with the tokens of the turn before, and says what the template says."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.coordinator.tokenizer import Tokenizer
from daemon.coordinator.turns import Prompt, Turn, go_on
from tests.coordinator import tokenizers as made

HI = {"role": "user", "content": "def walk(top):"}
MORE = {"role": "user", "content": "and then?"}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def spelt(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Character by character: as no tokenizer would write it, but a model may."""
    return tuple(t for char in text for t in tokenizer.encode_more(char))


def turn_of(
    tokenizer: Tokenizer,
    reply: tuple[int, ...],
    shown: str,
    *,
    cut: bool = False,
) -> Turn:
    prompt = Prompt(tokenizer.render([HI]), tuple(tokenizer.encode_chat([HI])))
    return Turn(prompt, reply, shown, cut)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made.sentence_piece(tmp_path_factory.mktemp("llama"), made.INSTRUCT)


def end_of(tokenizer: Tokenizer) -> int:
    return next(iter(tokenizer.eos_tokens))


@pytest.mark.parametrize("reply", ["return top", "", " two\n\n", "größe 🚀"])
def test_a_turn_that_the_model_ended(chatml: Tokenizer, reply: str) -> None:
    """The token that ended it is the one that the template writes: once."""
    turn = turn_of(chatml, spelt(chatml, reply), reply)
    text = chatml.render([HI, answer(reply), MORE])
    prompt = go_on(chatml, turn, text)
    assert prompt is not None
    held = (*turn.tokens, end_of(chatml))
    assert prompt.tokens[: len(held)] == held
    assert prompt.text == chatml.text(prompt.tokens) == text
    usual = Turn(turn.prompt, tuple(chatml.encode_more(reply)), reply, False)
    whole = tuple(chatml.encode_chat([HI, answer(reply), MORE]))
    again = go_on(chatml, usual, text)
    assert again is not None
    assert again.tokens == whole, "the same as encoding all of it, where the model wrote as usual"


def test_a_turn_that_was_broken_off(chatml: Tokenizer) -> None:
    turn = turn_of(chatml, spelt(chatml, "return t"), "return t")
    text = chatml.render([HI, answer("return t"), MORE])
    prompt = go_on(chatml, turn, text)
    assert prompt is not None
    assert prompt.tokens[: len(turn.tokens) + 1] == (*turn.tokens, end_of(chatml))
    assert chatml.text(prompt.tokens) == text


def test_broken_off_inside_a_character(chatml: Tokenizer) -> None:
    reply = (*spelt(chatml, "a "), *chatml.encode_more("🚀")[:-1])
    shown = chatml.text(reply)
    assert shown.endswith("\N{REPLACEMENT CHARACTER}")
    turn = turn_of(chatml, reply, shown)
    prompt = go_on(chatml, turn, chatml.render([HI, answer(shown), MORE]))
    assert prompt is not None
    assert prompt.tokens[: len(turn.tokens)] == turn.tokens


def test_cut_at_a_stop_string_the_shown_text_goes_on(chatml: Tokenizer) -> None:
    turn = turn_of(chatml, spelt(chatml, "one STOP"), "one ", cut=True)
    text = chatml.render([HI, answer("one "), MORE])
    prompt = go_on(chatml, turn, text)
    assert prompt is not None
    assert prompt.tokens[: len(turn.prompt.tokens)] == turn.prompt.tokens
    assert chatml.text(prompt.tokens) == text


def test_a_template_that_leaves_thinking_out(tmp_path: Path) -> None:
    tokenizer = made.byte_level(tmp_path, made.THINKING)
    said = "<think>hm</think>\n\nyes"
    turn = turn_of(tokenizer, spelt(tokenizer, said), said)
    text = tokenizer.render([HI, answer(said), MORE])
    assert "hm" not in text
    prompt = go_on(tokenizer, turn, text)
    assert prompt is not None
    assert prompt.tokens[: len(turn.prompt.tokens)] == turn.prompt.tokens
    assert tokenizer.text(prompt.tokens) == text


def test_a_template_that_writes_the_past_anew(tmp_path: Path) -> None:
    tokenizer = made.byte_level(tmp_path, made.FORGETFUL)
    turn = turn_of(tokenizer, spelt(tokenizer, "yes"), "yes")
    assert go_on(tokenizer, turn, tokenizer.render([HI, answer("yes"), MORE])) is None


def test_a_raw_text_goes_on_without_the_end_of_text(chatml: Tokenizer) -> None:
    first = Prompt("def f", tuple(chatml.encode("def f")))
    turn = Turn(first, spelt(chatml, "oo(): p"), "oo(): p", False)
    prompt = go_on(chatml, turn, turn.text + "ass")
    assert prompt is not None
    assert prompt.tokens == (*turn.tokens, *chatml.encode_more("ass"))
    assert chatml.text(prompt.tokens) == "def foo(): pass"


def test_a_word_goes_on_in_a_sentence_piece_text(llama: Tokenizer) -> None:
    """Neither a second beginning of text, nor a space in front of what goes on."""
    begin = llama.encode("")[0]
    first = Prompt("hello w", tuple(llama.encode("hello w")))
    assert first.tokens[0] == begin
    turn = Turn(first, tuple(llama.encode_more("or")), "or", False)
    prompt = go_on(llama, turn, turn.text + "ld, say")
    assert prompt is not None
    assert prompt.tokens[: len(turn.tokens)] == turn.tokens
    assert begin not in prompt.tokens[1:]
    assert llama.text(prompt.tokens[1:]).lstrip() == prompt.text == "hello world, say"


def test_a_chat_of_a_sentence_piece_model(llama: Tokenizer) -> None:
    """The answer's first token holds the space that the client is not shown."""
    reply = spelt(llama, " are you")
    turn = turn_of(llama, reply, "are you")
    text = llama.render([HI, answer("are you"), MORE])
    prompt = go_on(llama, turn, text)
    assert prompt is not None
    assert prompt.tokens[: len(turn.tokens) + 1] == (*turn.tokens, end_of(llama))
    whole = llama.encode_chat([HI, answer("are you"), MORE])
    tail = whole[len(whole) - whole[::-1].index(end_of(llama)) :]
    assert prompt.tokens[len(turn.tokens) + 1 :] == tuple(tail), "as if all were encoded at once"
