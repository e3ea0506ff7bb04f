"""A model of integers. The next token depends on every token before it, through per-layer state
like KV: computing with wrong tokens, wrong state or a missing layer gives another token.
"""

from __future__ import annotations

from zlib import crc32

from daemon.fidelity import Fidelity
from daemon.scheduler.request import Request

LAYERS = 4
VOCABULARY = 97
_PRIME = (1 << 61) - 1


def _mix(a: int, b: int) -> int:
    return ((a ^ (b >> 7)) * 0x9E3779B97F4A7C15 + b) % _PRIME


class Layers:
    """A range of layers with the state of one sequence."""

    def __init__(self, start: int, end: int, fidelity: Fidelity) -> None:
        self._start = start
        self.fidelity = fidelity
        other = 0 if fidelity == Fidelity() else crc32(str(fidelity).encode())
        self._states = [[layer + 1 + other] for layer in range(start, end)]
        self.lowest = 0  # that it was cut to since that was last looked at

    def __len__(self) -> int:
        return len(self._states[0]) - 1

    def trim(self, length: int) -> None:
        self.lowest = min(self.lowest, length)
        for state in self._states:
            assert len(state) > length, "KV trimmed to more than it holds"
            del state[length + 1 :]

    def part(self, start: int, end: int) -> Layers:
        """A copy of some of the layers."""
        part = Layers(start, end, self.fidelity)
        part._states = [list(s) for s in self._states[start - self._start : end - self._start]]
        return part

    def cut(self, layer: int, start: int, stop: int) -> list[int]:
        """What one layer has of positions [start, stop)."""
        return self._states[layer - self._start][start + 1 : stop + 1]

    def paste(self, layer: int, start: int, states: list[int]) -> None:
        self._states[layer - self._start][start + 1 :] = states

    def fork(self, length: int) -> Layers:
        fork = self.part(self._start, self._start + len(self._states))
        fork.trim(length)
        return fork

    def run(self, values: list[int]) -> list[int]:
        for offset, state in enumerate(self._states):
            out = []
            for value in values:
                state.append(_mix(state[-1], value))
                out.append(_mix(state[-1], self._start + offset))
            values = out
        return values


def head(value: int, seed: int) -> int:
    return _mix(value, seed) % VOCABULARY


def reference(request: Request, context_length: int) -> tuple[int, ...]:
    """What one process delivers."""
    layers = Layers(0, LAYERS, request.fidelity)
    values, total, tokens = list(request.prompt), len(request.prompt), []
    while True:
        token = head(layers.run(values)[-1], request.params.seed)
        if token in request.stop_tokens:
            return tuple(tokens)
        tokens.append(token)
        total += 1
        if len(tokens) == request.max_tokens or total >= context_length:
            return tuple(tokens)
        values = [token]
