"""What each step of the training does: its phases, learning rates, windows and weights."""

from dataclasses import dataclass

DRAFT_FROM = 600  # the draft joins: before, the target has little to teach
LEAN_FROM = 950  # the target begins to learn from the draft as well
ALONE_FROM = 1200  # the draft goes on alone
RESHAPE_AT = 1225  # the draft gets its final shape
MEND_FROM = 1325  # both learn again, the draft without the target's bare first choices
POLISH_FROM = 1475  # the target is finished, the draft goes on alone

_WARM_UP = 50
_DECAY_FROM = 900  # the target's rates fall, to nothing at ALONE_FROM
_ALONE_STEPS = 400  # what the fall of the draft's rates was laid out for
_MEND_RATE = 0.5
_POLISH_RATE = 0.7


@dataclass(frozen=True)
class Plan:
    """The phases, of which only the last has a length to choose."""

    polish_steps: int

    @property
    def steps(self) -> int:
        """All of them."""
        return POLISH_FROM + self.polish_steps

    def target_learns(self, step: int) -> bool:
        """Whether the target is trained in this step."""
        return step < ALONE_FROM or MEND_FROM <= step < POLISH_FROM

    def target_rate(self, step: int) -> float:
        """The share of the full learning rates."""
        if step >= MEND_FROM:
            return _MEND_RATE * (POLISH_FROM - step) / (POLISH_FROM - MEND_FROM)
        left = (ALONE_FROM - step) / (ALONE_FROM - _DECAY_FROM)
        return min(1.0, (step + 1) / _WARM_UP, left)

    def draft_rate(self, step: int) -> float:
        """The share of the full learning rates."""
        if step >= POLISH_FROM:
            return _POLISH_RATE * (self.steps - step) / self.polish_steps
        if step >= MEND_FROM:
            return (POLISH_FROM - step) / (POLISH_FROM - MEND_FROM)
        return min(1.0, (ALONE_FROM + _ALONE_STEPS - step) / _ALONE_STEPS)

    def window(self, step: int) -> int:
        """Mostly short windows; later also long ones, for long prompts' sake."""
        if step >= MEND_FROM:
            return 1024 if step % 8 == 5 else 256
        if step <= _DECAY_FROM:
            return 256
        return {1: 1024, 5: 1024, 9: 1024, 13: 2048}.get(step % 16, 256)

    def lean(self, step: int) -> float:
        """The weight of the draft's opinion in what the target learns."""
        if step < LEAN_FROM:
            return 0.0
        return 0.4 if step < MEND_FROM else 0.35

    def hard(self, step: int) -> float:
        """The weight of the target's bare first choice in what the draft learns. While the target
        leans as well, it makes both fall in love with a few words: hence none while it mends."""
        return 0.0 if MEND_FROM <= step < POLISH_FROM else 0.5
