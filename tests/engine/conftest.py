"""Tiny models, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.engine import model
from tests.engine.tiny import RECURRENT, Tiny, config_of, reference_tokens, write_model

GENERATED = 32
MakeTiny = Callable[[str, int | None], Tiny]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MakeTiny:
    """Model and reference by architecture and bits; refuses a reference that proves nothing."""
    made: dict[tuple[str, int | None], Tiny] = {}
    root: Path = tmp_path_factory.mktemp("models")

    def make(architecture: str, bits: int | None = None) -> Tiny:
        key = architecture, bits
        if key not in made:
            config = config_of(architecture)
            folder = write_model(root / f"{architecture}-{bits}", config, bits=bits)
            reference = reference_tokens(folder, GENERATED)
            assert len(set(reference)) >= 8, "the reference repeats itself: parity proves nothing"
            for layer in range(config["num_hidden_layers"]):
                skipped = reference_tokens(folder, GENERATED, skip=layer)
                assert skipped != reference, f"layer {layer} does not matter: parity proves nothing"
            made[key] = Tiny(folder, config["num_hidden_layers"], reference)
        return made[key]

    return make


@pytest.fixture
def recurrent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models with recurrent layers are let in, as one of them will be that is supported."""
    monkeypatch.setattr(model, "SUPPORTED", (*model.SUPPORTED, *RECURRENT))
