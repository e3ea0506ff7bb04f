"""Runs a part of a model with the model's own forward: only the calls of its layers are
intercepted.

Each layer object gets a subclass of its own class, so everything that the forward asks of it (its
type, its attributes, its parameters) stays as it was. Masks, scales and whatever else stands
between the layers run unmodified; what is not needed for the result is a lazy expression that
nobody evaluates.

    before the range   not run; the call in front of the range returns the hidden state that came
    from the neighbour in the range       run; after the last of them the forward is left tail
    (norm, head)  no layer runs; the last call returns the hidden state given
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from daemon.layers import LayerRange

Forward = Callable[..., Any]


class _LeaveForward(Exception):
    """Raised out of the model's forward when the range has run."""


class PartialModel:
    """A model of which only `layers` run. Takes the model over: its layers' classes are
    replaced.
    """

    def __init__(self, model: Module, layers: LayerRange) -> None:
        self.model = model
        self.layers = layers
        self._count = len(model.layers)
        self._entering: mx.array | None = None
        self._leaving: mx.array | None = None
        self._tail = False
        for index, layer in enumerate(model.layers):
            self._intercept(index, layer)

    def body(self, tokens: mx.array, cache: Sequence[Any], hidden: mx.array | None) -> mx.array:
        """The hidden state [1, n, hidden_size] after the range, not evaluated.

        `tokens` is [1, n]; `hidden` [1, n, hidden_size] comes from the stage before, None on the
        first.
        """
        self._entering, self._tail = hidden, False
        try:
            self.model(tokens, cache=cache)
        except _LeaveForward:
            assert self._leaving is not None
            return self._leaving
        finally:
            self._entering = self._leaving = None
        raise AssertionError("the forward ended without calling the last layer of the range")

    def tail(self, hidden: mx.array) -> mx.array:
        """Norm and head: [1, n, hidden_size] to logits [1, n, vocabulary]. Only on the last
        stage.
        """
        self._entering, self._tail = hidden, True
        try:
            # Only the shape of these tokens matters: the embedding is built but never evaluated.
            logits: mx.array = self.model(mx.zeros(hidden.shape[:2], mx.int32), cache=None)
        finally:
            self._entering, self._tail = None, False
        return logits

    def _intercept(self, index: int, layer: Module) -> None:
        base = type(layer)
        run: Forward = base.__call__
        last = self._count - 1

        def skipped(layer: Module, hidden: mx.array, *args: Any, **kwargs: Any) -> Any:
            return hidden

        def entrance(layer: Module, hidden: mx.array, *args: Any, **kwargs: Any) -> Any:
            return hidden if self._tail else self._entering

        def inside(layer: Module, hidden: mx.array, *args: Any, **kwargs: Any) -> Any:
            return hidden if self._tail else run(layer, hidden, *args, **kwargs)

        def exit_(layer: Module, hidden: mx.array, *args: Any, **kwargs: Any) -> Any:
            if self._tail:
                return self._entering
            self._leaving = run(layer, hidden, *args, **kwargs)
            raise _LeaveForward

        if index == self.layers.end - 1:
            call: Forward = exit_
        elif index == self.layers.start - 1:
            call = entrance
        elif index < self.layers.start:
            call = skipped
        elif index < self.layers.end and self.layers.end - 1 == last:
            call = inside
        else:  # run as it is, or never reached
            return
        layer.__class__ = type(base.__name__, (base,), {"__call__": call})
