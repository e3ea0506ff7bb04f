"""A stage reads its own tensors, and says in one line when it cannot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from daemon.engine import errors
from daemon.engine.checkpoint import read_catalog
from daemon.engine.model import SUPPORTED, read_model, weights_digest
from daemon.engine.stage import Row, Stage
from daemon.layers import LayerRange
from tests.engine.conftest import GENERATED, MakeTiny
from tests.engine.tiny import (
    GREEDY,
    PROMPT,
    Pipe,
    config_of,
    load_split,
    reference_tokens,
    save,
    splits,
    write_model,
)


@pytest.mark.parametrize("architecture", SUPPORTED)
@pytest.mark.parametrize("bits", [None, 4])
def test_opens_only_its_own_tensors(architecture: str, bits: int | None, tiny: MakeTiny) -> None:
    model = tiny(architecture, bits)
    catalog = read_catalog(model.folder)
    tied = not any(name.startswith("lm_head") for name in catalog)
    for stage in load_split(model.folder, (0, 2, 3, model.layers)):
        wanted = {
            name
            for name, entry in catalog.items()
            if (
                entry.layer in range(stage.layers.start, stage.layers.end)
                or ("embed_tokens" in name and (stage.is_first or (tied and stage.is_last)))
                or (entry.layer is None and "embed_tokens" not in name and stage.is_last)
            )
        }
        assert stage.tensor_names == wanted
        assert stage.weights_bytes == sum(catalog[name].nbytes for name in wanted)


def test_reads_no_more_bytes_than_its_own(tmp_path: Path) -> None:
    """Counted by the kernel, in a process of its own."""
    config = config_of("llama", hidden_size=128, intermediate_size=2048, vocab_size=20_000)
    folder = write_model(tmp_path / "model", config)
    code = """if True:
        import sys
        from pathlib import Path
        from daemon.engine.stage import Stage
        from daemon.layers import LayerRange
        def count(): return int(Path("/proc/self/io").read_text().split()[1])
        folder = Path(sys.argv[1])
        Stage.load(Path(sys.argv[2]), LayerRange(0, 1))  # modules and their files, once
        before = count()
        stage = Stage.load(folder, LayerRange(1, 2))
        print(count() - before, stage.weights_bytes)
    """
    other = write_model(tmp_path / "other", config_of("llama"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(other)],
        capture_output=True,
        text=True,
        check=True,
    )
    read, own = map(int, done.stdout.split())
    assert own <= read <= own + 200_000, "headers and configuration are all that may come on top"


def test_opens_only_files_that_hold_own_tensors(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", config_of("llama"), files=4)
    reference = reference_tokens(folder, 8)
    stages = load_split(folder, (0, 1, 3, 4))
    assert Pipe(stages).generate(PROMPT, 8) == reference
    assert {f.name[:11] for f in stages[1].files_opened} < {f"model-0000{n}" for n in (1, 2, 3, 4)}
    assert len(stages[1].files_opened) < 4


def to_published_form(weights: dict[str, mx.array], experts: int) -> dict[str, mx.array]:
    """As Hugging Face stores them: experts apart, deepseek's two latent projections in one."""
    out: dict[str, mx.array] = {}
    for name, array in weights.items():
        if ".switch_mlp." in name:
            for n in range(experts):
                out[name.replace("switch_mlp", f"experts.{n}")] = array[n]
        elif name.endswith("embed_q.weight"):
            other = weights[name.replace("embed_q", "unembed_out")]
            joined = mx.concatenate([array.swapaxes(-1, -2), other], axis=1)
            out[name.replace("embed_q", "kv_b_proj")] = joined.reshape(-1, joined.shape[-1])
        elif not name.endswith("unembed_out.weight"):
            out[name] = array
    return out


@pytest.mark.parametrize("architecture", ["qwen3_moe", "deepseek_v3", "glm4_moe"])
def test_tensors_that_are_renamed_and_joined_at_load(
    architecture: str, tiny: MakeTiny, tmp_path: Path
) -> None:
    model = tiny(architecture, None)
    loaded, _ = load_model(model.folder)
    weights = to_published_form(dict(tree_flatten(loaded.parameters())), experts=4)
    save(tmp_path, config_of(architecture), weights)
    stages = load_split(tmp_path, (0, 2, 4))
    assert Pipe(stages).generate(PROMPT, GENERATED) == model.reference
    assert not any(".layers.2." in name for name in stages[0].tensor_names)
    assert any("experts.3." in name for name in stages[1].tensor_names)
    assert sum(stage.tensors_opened for stage in stages) == len(weights)


def test_progress_reaches_the_whole(tiny: MakeTiny) -> None:
    calls: list[tuple[int, int]] = []
    stage = Stage.load(
        tiny("llama", None).folder, LayerRange(1, 3), progress=lambda *c: calls.append(c)
    )
    assert calls == sorted(calls)
    assert len(calls) >= 18
    assert calls[-1] == (stage.weights_bytes, stage.weights_bytes)


def test_nothing_of_other_layers_is_left(tiny: MakeTiny) -> None:
    stage = Stage.load(tiny("llama", None).folder, LayerRange(1, 3))
    layers = stage._partial.model.layers
    assert not tree_flatten(layers[0].parameters())
    assert not tree_flatten(layers[3].parameters())
    assert tree_flatten(layers[1].parameters())


@pytest.fixture
def copy(tiny: MakeTiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("llama", None).folder, tmp_path / "copy"))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def refused(folder: Path, kind: type[errors.LoadError], text: str, layers: tuple[int, int]) -> None:
    with pytest.raises(kind, match=text) as caught:
        Stage.load(folder, LayerRange(*layers))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_truncated_weights(copy: Path) -> None:
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        file.write_bytes(whole[:size])
        refused(copy, errors.TruncatedWeights, "model.safetensors", (0, 2))
    with pytest.raises(errors.TruncatedWeights, match="1 bytes shorter"):
        read_model(copy)


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all",
        b"[]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}',
    ],
)
def test_damaged_header(copy: Path, header: bytes) -> None:
    data = len(header).to_bytes(8, "little") + header + bytes(100)
    (copy / "model.safetensors").write_bytes(data)
    refused(copy, errors.UnreadableCheckpoint, "damaged header", (0, 2))


def test_not_safetensors(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"PK\x03\x04 a zip archive, perhaps " * 100)
    refused(copy, errors.UnreadableCheckpoint, "not a safetensors file", (0, 2))


def test_absent_files(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    refused(copy, errors.UnreadableCheckpoint, "no model", (0, 2))
    (copy / "config.json").unlink()
    refused(copy, errors.UnreadableCheckpoint, "config.json: no such file", (0, 2))
    refused(tmp_path / "nowhere", errors.UnreadableCheckpoint, "no such file", (0, 2))


def test_absent_part_of_several(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", config_of("llama"), files=3)
    file = folder / "model-00003-of-00003.safetensors"
    data = file.read_bytes()
    file.unlink()
    refused(folder, errors.UnreadableCheckpoint, "absent", (0, 1))
    mx.save_safetensors(str(file), {"foreign": mx.zeros((3,))})
    refused(folder, errors.MissingWeights, "in no file", (0, 1))
    file.write_bytes(data)
    Stage.load(folder, LayerRange(0, 1))


def test_missing_and_foreign_tensors(copy: Path) -> None:
    weights = mx.load(str(copy / "model.safetensors"))
    assert isinstance(weights, dict)
    mx.eval(weights)
    config = config_of("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    save(copy, config, {n: a for n, a in weights.items() if n != name})
    refused(copy, errors.MissingWeights, name, (0, 2))
    save(copy, config, {**weights, name: mx.zeros((3, 3))})
    refused(copy, errors.MissingWeights, name, (0, 2))
    save(copy, config, {**weights, "model.layers.1.surprise": mx.zeros((3, 3))})
    refused(copy, errors.MissingWeights, "surprise", (0, 2))


def test_configuration_of_another_model(copy: Path) -> None:
    change_config(copy, hidden_size=128)
    refused(copy, errors.MissingWeights, "do not fit together", (0, 2))
    change_config(copy, hidden_size="big")
    refused(copy, errors.UnreadableCheckpoint, "hidden_size is 'big'", (0, 2))
    change_config(copy, model_type="mamba9")
    refused(copy, errors.UnsupportedArchitecture, "'mamba9' is not supported.*llama", (0, 2))
    (copy / "config.json").write_text("{")
    refused(copy, errors.UnreadableCheckpoint, "not JSON", (0, 2))


def test_range_outside_the_model(copy: Path) -> None:
    refused(copy, errors.WrongLayers, r"layers \[3, 5\) of a model of 4", (3, 5))


def test_rows_that_do_not_fit_are_refused(tiny: MakeTiny) -> None:
    first, last = load_split(tiny("llama", None).folder, (0, 2, 4))
    row = Row(last.new_cache(), [1, 2], [1, 2], 1, GREEDY)
    with pytest.raises(errors.EngineError, match=r"\[2, 64\]"):
        last.run([row], [mx.zeros((3, 64))])
    with pytest.raises(errors.EngineError, match=r"\[2, 64\]"):
        last.run([row], None)
    with pytest.raises(errors.EngineError, match="no hidden states"):
        first.run([row], [mx.zeros((2, 64))])
    with pytest.raises(errors.EngineError, match="no rows"):
        first.run([], None)
    with pytest.raises(errors.EngineError, match="history of 5"):
        last.run([Row(last.new_cache(), [1, 2], [1] * 5, 1, GREEDY)], [mx.zeros((2, 64))])
    assert row.cache.length == 0


def test_what_is_told_of_a_model(tiny: MakeTiny) -> None:
    plain, packed = read_model(tiny("llama", None).folder), read_model(tiny("llama", 4).folder)
    assert (plain.layers, plain.hidden_size, plain.vocab_size, plain.context_length) == (
        (4, 64, 160, 2048)
    )
    assert (plain.dtype, plain.quantization, plain.tied) == ("float32", None, False)
    assert (packed.dtype, packed.quantization) == ("float32", "affine 4-bit, groups of 32")
    assert plain.kv_bytes_per_token_per_layer == 2 * 2 * 16 * 4
    assert read_model(tiny("deepseek_v3", None).folder).kv_bytes_per_token_per_layer == 48 * 4
    for architecture in SUPPORTED:
        model = tiny(architecture, None)
        stages = [Stage.load(model.folder, LayerRange(a, b)) for a, b in ((0, 1), (1, 2))]
        info = read_model(model.folder)
        assert info.layer_bytes[1] == stages[1].weights_bytes
        assert info.embedding_bytes + info.layer_bytes[0] == stages[0].weights_bytes
    assert read_model(tiny("qwen3", None).folder).tied


def test_digest_changes_with_every_part(copy: Path) -> None:
    before = weights_digest(copy)
    assert before == weights_digest(copy)
    file = copy / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert weights_digest(copy) != before
    file.write_bytes(data)
    assert weights_digest(copy) == before
    change_config(copy, comment="x")
    assert weights_digest(copy) != before


def test_digest_of_a_large_model_is_sampled(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.engine.digest.WHOLE_BELOW", 0)
    file = copy / "model.safetensors"
    before, data = weights_digest(copy), file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert weights_digest(copy) != before


@pytest.mark.parametrize("module", ["daemon.engine.model", "daemon.engine.blas", "daemon.engine"])
def test_coordinator_and_shardd_import_no_mlx(module: str) -> None:
    code = f"import {module}, sys; sys.exit(any(m.split('.')[0] == 'mlx' for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_splits_are_all_there() -> None:
    assert len(list(splits(6, 2))) == 5
    assert len(list(splits(6, 3))) == 10
