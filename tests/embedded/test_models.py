"""The stored models open in mlx-lm, keep within their limits and do what their record says."""

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

from daemon.embedded import DRAFT, RECORD, TARGET
from daemon.embedded.train.corpus import gather
from daemon.embedded.train.evaluate import generate, score, windows
from daemon.embedded.train.parseable import Lines, judge

# Without the end of the line: one token holds it together with the indentation that follows.
PROMPTS = (
    "import os\n\n\ndef read_lines(path):",
    "class Queue:\n    def __init__(self, maxsize=0):",
    "def main(args=None):\n    parser = argparse.ArgumentParser()",
)


@pytest.fixture(scope="module")
def target() -> Any:
    return load(str(TARGET))


@pytest.fixture(scope="module")
def draft() -> Any:
    return load(str(DRAFT))


def weights(model: Any) -> dict[str, Any]:
    return dict(tree_flatten(model.parameters()))


def config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return loaded


def parameters(model: Any) -> int:
    return sum(array.size for array in weights(model).values())


def test_both_folders_fit_into_16_megabytes() -> None:
    files = [file for folder in (TARGET, DRAFT) for file in folder.rglob("*") if file.is_file()]
    assert len(files) == 8
    assert sum(file.stat().st_size for file in files) <= 16_000_000


def test_layers_parameters_and_head_size_are_within_their_limits(target: Any, draft: Any) -> None:
    assert config(TARGET)["num_hidden_layers"] == len(target[0].layers) >= 8
    assert config(DRAFT)["num_hidden_layers"] == len(draft[0].layers) <= 2
    assert parameters(draft[0]) * 6 <= parameters(target[0])
    for folder in (TARGET, DRAFT):
        assert config(folder)["head_dim"] % 32 == 0
        assert config(folder)["max_position_embeddings"] >= 4096


def test_weights_are_float32_and_not_shared(target: Any, draft: Any) -> None:
    of_target, of_draft = weights(target[0]), weights(draft[0])
    assert {array.dtype for array in (*of_target.values(), *of_draft.values())} == {mx.float32}
    for name in of_target.keys() & of_draft.keys():
        # Different widths: no tensor of one can be a copy of the other's.
        assert of_target[name].shape != of_draft[name].shape


def test_the_tokenizer_is_the_same_in_both_folders() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (TARGET / name).read_bytes() == (DRAFT / name).read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "def f(self, x):\n\treturn x  # é, ß, 漢字, 🙂, \u202e\r\n",
        "  two ,  spaces . before 's n't !\n\n\n",
        "\x00\x01\x7f\ufeff\u2028",
        "".join(map(chr, range(0xD800))),
    ],
)
def test_every_text_survives_the_tokenizer(target: Any, text: str) -> None:
    tokenizer = target[1]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_end_of_text_is_known_and_ends_generation(target: Any) -> None:
    assert target[1].eos_token_ids == {config(TARGET)["eos_token_id"]} == {0}


def test_the_last_positions_of_the_context_give_finite_logits(target: Any, draft: Any) -> None:
    # Computing a whole long prompt takes too long here; that is in the record.
    for (model, _), folder in ((target, TARGET), (draft, DRAFT)):
        shape = config(folder)
        length = shape["max_position_embeddings"]
        held = mx.random.normal((1, shape["num_key_value_heads"], length - 16, shape["head_dim"]))
        cache = make_prompt_cache(model)
        for layer in cache:
            layer.update_and_fetch(held, held)
        assert mx.isfinite(model(mx.arange(16)[None], cache=cache)).all().item()
        assert cache[0].offset == length


def test_the_draft_agrees_on_held_out_text(target: Any, draft: Any) -> None:
    ids: list[int] = []
    for module in gather().held_out:
        ids += [*target[1].encode(module.text), 0]
    rows = windows(ids, 128)
    scores = score(target[0], draft[0], rows[:: len(rows) // 10])  # spread over all modules
    assert scores.tokens >= 1280
    assert scores.agreement >= 0.6
    assert scores.target_nats < scores.draft_nats < 3.5


def test_continuations_are_mostly_python(target: Any) -> None:
    model, tokenizer = target
    total = Lines(0, 0, 0)
    for prompt in PROMPTS:
        new = generate(model, tokenizer.encode(prompt), tokenizer.eos_token_id, tokens=64)
        total += judge(prompt, tokenizer.decode(new))
    assert total.good + total.bad >= 6
    assert total.share >= 0.75


def test_the_record_satisfies_the_limits(target: Any, draft: Any) -> None:
    record = json.loads(RECORD.read_text())
    training, evaluation = record["training"], record["evaluation"]
    assert training["target_parameters"] == parameters(target[0])
    assert training["draft_parameters"] == parameters(draft[0])
    assert {"seed", "steps", "seconds", "machine", "python", "torch"} <= training.keys()
    held_out = evaluation["held_out"]
    assert held_out["agreement"] >= 0.6
    assert held_out["tokens"] >= 100_000
    assert held_out["target_nats"] < held_out["draft_nats"] < np.log(1024) / 2
    assert evaluation["greedy"]["parseable_share"] >= 0.75
    # Long prompts are continued about as well as short ones.
    by_position = evaluation["target_nats_by_position"]
    assert all(map(math.isfinite, by_position.values()))
    assert by_position["3584-4096"] < by_position["0-512"] + 0.5
