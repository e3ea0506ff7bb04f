"""Once a stage says that it is ready, nothing is compiled any more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from daemon.engine.stage import Row, Stage
from daemon.layers import LayerRange
from tests.engine.conftest import MakeTiny
from tests.engine.test_stage import in_a_process

# Everything that a stage may be asked for: steps of any size with any options, pieces of prompts
# in them, chunks alone, and caches that grow.
WORK = """if True:
    import json, random, sys, tempfile
    from pathlib import Path
    from daemon.engine import manykeys, stage as module
    from daemon.engine.stage import Row, Stage
    from daemon.layers import LayerRange
    from daemon.sampling import SamplingParams
    def compiled():
        return sorted(p.name for p in Path(tempfile.gettempdir()).rglob("*.so"))
    module._WARM_SECONDS = float(sys.argv[3])
    stage = Stage.load(Path(sys.argv[1]), LayerRange(0, int(sys.argv[2])))
    manykeys.MANY = 1 << 30
    stage.warm()
    manykeys.MANY = 64
    before, rng = compiled(), random.Random(0)
    every = [
        SamplingParams(),
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=1.0, top_p=0.9, top_k=5),
        SamplingParams(repetition_penalty=1.2, logprobs=3),
    ]
    kinds = [0] if stage.info.kv_quantization.refusal(8) else [0, 0, 8]
    sequences = []
    for _ in range(40):
        if len(sequences) < 9:
            sequences.append((stage.new_cache(rng.choice(kinds)), []))
        rows = []
        for cache, history in rng.sample(sequences, rng.randint(1, len(sequences))):
            new = [rng.randrange(100) for _ in range(rng.choice((1, 1, 1, 1, 5)))]
            history += new
            rows.append(Row(cache, new, list(history), 1, rng.choice(every)))
        stage.run(rows)
    cache = stage.new_cache()
    for n in (1, 16, 32, 64, 7):
        stage.run([Row(cache, [5] * n, [5] * (cache.length + n), 1, every[0])])
    print(json.dumps([stage.compiled, len(before), sorted(set(compiled()) - set(before))]))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles with g++ on the CPU")
@pytest.mark.skipif(os.uname().sysname != "Linux", reason="looks where MLX on Linux compiles to")
@pytest.mark.parametrize(
    ("architecture", "seconds"),
    [
        ("qwen3", 2.0),
        pytest.param("gemma3_text", 0.0, marks=pytest.mark.soak),
        pytest.param("deepseek_v3", 0.0, marks=pytest.mark.soak),
    ],
)
def test_no_compilation_after_ready(
    architecture: str, seconds: float, tiny: MakeTiny, tmp_path: Path
) -> None:
    """Nor with a model that is so slow that the time to measure is over at once."""
    model = tiny(architecture, None)
    arguments = str(model.folder), str(model.layers), str(seconds)
    works, before, after = in_a_process(WORK, *arguments, TMPDIR=str(tmp_path))
    assert works
    assert before > 0
    assert after == []


def test_a_slow_model_has_computed_several_sequences_together(
    tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of batches are made before it is ready, though the time to measure them is over."""
    monkeypatch.setattr("daemon.engine.stage._WARM_SECONDS", 0.0)
    sizes: list[int] = []

    def noted(stage: Stage, rows: list[Row], hidden: Any) -> Any:
        sizes.append(len(rows))
        return run(stage, rows, hidden)

    run = Stage.run
    monkeypatch.setattr(Stage, "run", noted)
    speed = Stage.load(tiny("llama", None).folder, LayerRange(0, 2)).warm()
    assert [n for n, _ in speed.decode] == [1]
    assert set(sizes) == {1, 2}
    assert sizes.count(2) == 1
