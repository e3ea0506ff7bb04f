"""What a client asks for, how it can be refused, how it can end, and what it has used."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from daemon.fidelity import Fidelity
from daemon.kv_bits import check_kv_bits
from daemon.sampling import SamplingParams
from transports.frame import SEQUENCE_ID_BYTES

MAX_TOKEN = (1 << 31) - 1  # token ids are int32 on the wire


@dataclass(frozen=True, slots=True)
class Request:
    """`sequence` is 16 random bytes, chosen by the caller. A token of `stop_tokens` ends the
    sequence and is not delivered.
    """

    sequence: bytes
    prompt: tuple[int, ...]
    max_tokens: int
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_tokens: frozenset[int] = frozenset()
    fidelity: Fidelity = field(default_factory=Fidelity)


class Refusal(Enum):
    EMPTY_PROMPT = "empty-prompt"
    BAD_TOKEN = "bad-token"
    OVER_CONTEXT = "over-context"
    MAX_TOKENS = "max-tokens"
    SEQUENCE = "sequence"
    KV_BITS = "kv-bits"
    BUSY = "busy"
    MEMORY = "memory"


class RequestError(ValueError):
    """A request that cannot be taken. The client's fault, but for BUSY."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class FinishReason(Enum):
    STOP = "stop"  # a stop token, or a stop string that the text layer found
    LENGTH = "length"  # max_tokens, or the context is full
    CANCELLED = "cancelled"
    CONTEXT = "context"  # a new layout has too small a context, or too little memory, for it
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and seconds of one request. `completion_tokens` counts the stop token, as mlx-lm does;
    `cached_tokens` those of the prompt that were not computed for it; `first_token_seconds` is None
    when there was none.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reissues: int
    waiting_seconds: float
    first_token_seconds: float | None
    total_seconds: float


def check_request(request: Request, context_length: int | None) -> None:
    """Raise RequestError when the request can never be served."""
    prompt = request.prompt
    if len(request.sequence) != SEQUENCE_ID_BYTES:
        raise RequestError(
            Refusal.SEQUENCE, f"a sequence id of {len(request.sequence)} bytes, not 16"
        )
    if not prompt:
        raise RequestError(Refusal.EMPTY_PROMPT, "the prompt is empty")
    if min(prompt) < 0 or max(prompt) > MAX_TOKEN:
        raise RequestError(Refusal.BAD_TOKEN, f"a token id outside 0 to {MAX_TOKEN}")
    if request.max_tokens < 1:
        raise RequestError(
            Refusal.MAX_TOKENS, f"max_tokens is {request.max_tokens}, must be 1 or more"
        )
    try:
        check_kv_bits(request.fidelity.kv_bits)
    except ValueError as error:
        raise RequestError(Refusal.KV_BITS, str(error)) from error
    if context_length is not None and len(prompt) >= context_length:
        raise RequestError(
            Refusal.OVER_CONTEXT,
            f"the prompt has {len(prompt)} tokens, the context is {context_length}: "
            "at least one must stay free for the answer",
        )
