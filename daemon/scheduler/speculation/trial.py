"""Whether a draft model is worth what it takes: tried.

It may share its cores and their memory with stages, which are slower then. That is not in the time
of a guess, nor in what passes are seen to take as a rule. The rate of tokens has it all: so there
are periods with the draft and without, and the better of both goes on, until the other is tried
again.
"""

from __future__ import annotations

PERIOD = 64  # tokens
AGAIN = 32  # periods after which the worse one has one more
WEIGHT = 0.3  # of a new measurement


class Trial:
    """Of one way to share out sequences. `drafting`: the period at hand is one with the draft."""

    def __init__(self) -> None:
        self.drafting = True
        self._rates: dict[bool, float] = {}
        self._periods = 0
        self._tokens = 0
        self._began: float | None = None

    def interrupt(self) -> None:
        """What comes now is not to be compared with what was before: the period begins anew."""
        self._tokens, self._began = 0, None

    def delivered(self, tokens: int, now: float, otherwise: bool) -> None:
        """To all clients together. The first tokens begin a period. `otherwise`: there are guesses
        without the draft; before there ever are, nothing is tried.
        """
        if self._began is None:
            self._began = now
            return
        self._tokens += tokens
        if self._tokens < PERIOD or now <= self._began:
            return
        rate, usual = self._tokens / (now - self._began), self._rates.get(self.drafting)
        self._rates[self.drafting] = rate if usual is None else usual + WEIGHT * (rate - usual)
        self._periods += 1
        self._tokens, self._began = 0, now
        better = self._rates.get(True, 0.0) >= self._rates.get(False, 0.0)
        if len(self._rates) < 2:
            self.drafting = not (self.drafting and otherwise)
        else:
            self.drafting = better != (self._periods % AGAIN == 0)
