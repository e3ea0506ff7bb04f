"""Once a stage says that it is ready, nothing is compiled any more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.engine.conftest import MakeTiny
from tests.engine.test_stage import in_a_process

# Everything that a stage may be asked for: steps of any size with any options, pieces of prompts
# in them, chunks alone, and caches that grow.
WORK = """if True:
    import json, random, sys, tempfile
    from pathlib import Path
    from daemon.engine.stage import Row, Stage
    from daemon.layers import LayerRange
    from daemon.sampling import SamplingParams
    def compiled():
        return sorted(p.name for p in Path(tempfile.gettempdir()).rglob("*.so"))
    stage = Stage.load(Path(sys.argv[1]), LayerRange(0, 4))
    stage.warm()
    before, rng = compiled(), random.Random(0)
    every = [
        SamplingParams(),
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=1.0, top_p=0.9, top_k=5),
        SamplingParams(repetition_penalty=1.2, logprobs=3),
    ]
    sequences = []
    for _ in range(40):
        if len(sequences) < 9:
            sequences.append((stage.new_cache(rng.choice((0, 0, 8))), []))
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
def test_no_compilation_after_ready(tiny: MakeTiny, tmp_path: Path) -> None:
    folder = tiny("qwen3", None).folder
    works, before, after = in_a_process(WORK, str(folder), TMPDIR=str(tmp_path))
    assert works
    assert before > 0
    assert after == []
