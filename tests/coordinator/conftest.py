"""A tokenizer with a chat template, made once per run."""

from __future__ import annotations

import pytest

from daemon.coordinator.tokenizer import Tokenizer
from tests.coordinator import tokenizers as made


@pytest.fixture(scope="session")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made.byte_level(tmp_path_factory.mktemp("chatml"), made.CHATML)
