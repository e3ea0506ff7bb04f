"""How a request wants its tokens chosen: the constants of a sequence that the last stage needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
LARGEST_BIAS = 1e6  # far above any logit, and still finite when divided by any temperature
WHOLE = ("top_k", "penalty_window", "seed")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Temperature 0 is greedy. Penalties look at the last `penalty_window` tokens of prompt and
    output, as mlx-lm's do.

    `logprobs`: None, or how many of the most likely tokens to report beside the chosen one (0 =
    only the chosen one).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 20
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError, naming the option, when a value is outside what it may be."""
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("top_p", 0.0, 1.0),
            ("top_k", 0, 1 << 30),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", 0.01, 100.0),
            ("presence_penalty", -100.0, 100.0),
            ("frequency_penalty", -100.0, 100.0),
            ("penalty_window", 0, 1 << 20),
            ("seed", 0, (1 << 64) - 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} is {value!r}, not a number")
            if name in WHOLE and not isinstance(value, int):
                raise ValueError(f"{name} is {value!r}, not a whole number")
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, outside {low} to {high}")
        shown = self.logprobs
        if shown is not None and (type(shown) is not int or not 0 <= shown <= MAX_TOP_LOGPROBS):
            raise ValueError(f"logprobs is {shown!r}, not a whole number up to {MAX_TOP_LOGPROBS}")
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise ValueError(
                f"logit_bias has {len(self.logit_bias)} entries, more than {MAX_LOGIT_BIAS}"
            )

    def to_wire(self) -> dict[str, Any]:
        wire = asdict(self)
        wire["logit_bias"] = [[token, bias] for token, bias in self.logit_bias.items()]
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> SamplingParams:
        """Raises ValueError for an unknown option or a value out of range."""
        unknown = set(wire) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown sampling option {min(map(repr, unknown))}")
        values = dict(wire)
        try:
            pairs = [(token, bias) for token, bias in values.pop("logit_bias", ())]
        except (TypeError, ValueError) as error:
            raise ValueError("logit_bias is not a list of [token, bias] pairs") from error
        for token, bias in pairs:
            if type(token) is not int or not 0 <= token < 1 << 31:
                raise ValueError(f"logit_bias names {token!r:.40}, which is no token")
            if type(bias) not in (int, float) or not -LARGEST_BIAS <= bias <= LARGEST_BIAS:
                raise ValueError(
                    f"logit_bias of token {token} is {bias!r:.40}, not a number from "
                    f"{-LARGEST_BIAS:g} to {LARGEST_BIAS:g}"
                )
        return cls(logit_bias={t: float(b) for t, b in pairs}, **values)
