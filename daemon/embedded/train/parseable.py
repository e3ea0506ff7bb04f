"""How much of a continuation is Python: the share of its lines that a parser can follow."""

import warnings
from dataclasses import dataclass

_ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, which `codeop` uses as well


@dataclass(frozen=True)
class Lines:
    """A count of complete, non-blank lines, by what the parser says of them."""

    good: int  # code that may follow what stands before it
    bad: int  # code that may not
    text: int  # inside a string of several lines, where every line is right

    @property
    def share(self) -> float:
        """The good part of the lines of code."""
        return self.good / max(1, self.good + self.bad)

    def __add__(self, other: "Lines") -> "Lines":
        return Lines(self.good + other.good, self.bad + other.bad, self.text + other.text)


def _error(source: str, flags: int) -> str:
    """The message of the syntax error in `source`, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings, say
            compile(source, "<continuation>", "exec", flags=flags, dont_inherit=True)
    except SyntaxError as error:
        return str(error)
    except ValueError as error:  # a null byte
        return str(error)
    return ""


def can_begin(source: str) -> bool:
    """Whether some valid program may begin with these lines."""
    if not (error := _error(source, _ALLOW_INCOMPLETE)):
        return True
    return "incomplete input" in error


def in_text(source: str) -> bool:
    """Whether the next line would stand inside a triple-quoted string."""
    return "unterminated triple-quoted" in _error(source, 0)


def judge(prompt: str, continuation: str) -> Lines:
    """Judge each complete line in its context. A bad line is left out of the context of the
    next, so that one slip counts once. A line that the prompt begins counts when the
    continuation adds to it."""
    if prompt and not prompt.endswith("\n"):
        if continuation.startswith("\n"):
            prompt, continuation = prompt + "\n", continuation[1:]
        else:
            cut = prompt.rfind("\n") + 1
            prompt, continuation = prompt[:cut], prompt[cut:] + continuation
    context, total = prompt, Lines(0, 0, 0)
    for line in continuation.split("\n")[:-1]:
        extended = f"{context}{line}\n"
        if not line.strip():
            context = extended
        elif in_text(context):
            context, total = extended, total + Lines(0, 0, 1)
        elif can_begin(extended):
            context, total = extended, total + Lines(1, 0, 0)
        else:
            total += Lines(0, 1, 0)
    return total
