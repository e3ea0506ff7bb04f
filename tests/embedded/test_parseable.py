"""Lines are judged in their context, as a parser would meet them."""

import pytest

from daemon.embedded.train.parseable import Lines, can_begin, in_text, judge


@pytest.mark.parametrize(
    ("continuation", "lines"),
    [
        ("    return x\n\nprint(f(1))\n", Lines(2, 0, 0)),
        ("return x\n", Lines(0, 1, 0)),
        ("    return (x +\n        1)\n", Lines(2, 0, 0)),
        ("    '''Says\n    what it ( does.\n    '''\n    return x\n", Lines(2, 0, 2)),
        ("    x = )\n    return x\n", Lines(1, 1, 0)),
        ("    return x\n    an unfinished line", Lines(1, 0, 0)),
        ("", Lines(0, 0, 0)),
    ],
)
def test_lines_after_the_head_of_a_function(continuation: str, lines: Lines) -> None:
    assert judge("def f(x):\n", continuation) == lines


def test_a_prompt_may_end_within_a_line() -> None:
    assert judge("def f(x):", "\n    return x\n") == Lines(1, 0, 0)
    assert judge("a = 1\ndef f(", "x):\n    return x\n") == Lines(2, 0, 0)


def test_what_can_begin_a_program() -> None:
    assert can_begin("try:\n    f()\n")
    assert not can_begin("try:\n    f()\nx = 1\n")
    assert not can_begin("x = '\x00'\n")


def test_inside_a_string_of_several_lines() -> None:
    assert in_text('"""one\n')
    assert not in_text('"""one\n"""\n')


def test_the_share_counts_code_only() -> None:
    assert Lines(3, 1, 9).share == 0.75
    assert Lines(0, 0, 5).share == 0.0
