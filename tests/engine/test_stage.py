"""What a stage says of itself, and what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from daemon.engine.dependencies import dependencies
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from tests.engine.conftest import MakeTiny
from tests.engine.tiny import PROMPT, Pipe, config_of, load_split, write_model

GENERATE = """if True:
    import json, sys
    from pathlib import Path
    from daemon.engine.stage import Row, Stage
    from daemon.layers import LayerRange
    from daemon.sampling import SamplingParams
    stage = Stage.load(Path(sys.argv[1]), LayerRange(0, 4))
    stage.warm()
    prompt, params = json.loads(sys.argv[2]), SamplingParams()
    cache, history, new = stage.new_cache(), list(prompt), list(prompt)
    for _ in range(8):
        new = stage.run([Row(cache, new, history, 1, params)], None)[0].tokens
        history += new
    print(json.dumps([stage.compiled, history[len(prompt):]]))
"""


def in_a_process(code: str, *arguments: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("missing", [{"PATH": "/nonexistent"}, {"MLX_DISABLE_COMPILE": "1"}])
def test_works_without_a_compiler_and_says_so(tiny: MakeTiny, missing: dict[str, str]) -> None:
    model = tiny("llama", None)
    compiled, tokens = in_a_process(GENERATE, str(model.folder), json.dumps(PROMPT), **missing)
    assert compiled is False
    assert tuple(tokens) == model.reference[:8]


def test_warm_measures_and_changes_no_token(tiny: MakeTiny) -> None:
    model = tiny("qwen3", None)
    stages = load_split(model.folder, (0, 2, 4))
    speeds = [stage.warm() for stage in stages]
    assert all(0 < speed.prefill < 1 and 0 < speed.decode[0][1] < 1 for speed in speeds)
    pipe = Pipe(stages)
    assert pipe.generate(PROMPT, 12) == model.reference[:12]
    assert tuple(pipe.feed(model.reference[11:14], 3).tokens) == model.reference[12:15]


def test_carry_is_one_row_per_token_in_the_models_type(tiny: MakeTiny) -> None:
    from daemon.engine.stage import Row
    from tests.engine.tiny import GREEDY

    stage = Stage.load(tiny("gemma3_text", None).folder, LayerRange(0, 3))
    rows = [Row(stage.new_cache(), t, t, 0, GREEDY) for t in ([1, 2, 3], [4], [5, 6])]
    (carry,) = stage.run(rows, None)
    assert isinstance(carry, mx.array)
    assert (carry.shape, carry.dtype) == ((6, 64), mx.float32)
    assert memoryview(carry.view(mx.uint8)).contiguous


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's accounts")
def test_peak_memory_is_the_stages_own_share(tmp_path: Path) -> None:
    """After loading and a prompt: own weights and little more, of a model several times that."""
    config = config_of("llama", hidden_size=128, intermediate_size=8192, vocab_size=40_000)
    folder = write_model(tmp_path / "model", config)
    small = write_model(tmp_path / "small", config_of("llama"))
    code = """if True:
        import json, sys
        from pathlib import Path
        import mlx.core as mx
        from daemon.engine.stage import Row, Stage
        from daemon.layers import LayerRange
        from daemon.sampling import SamplingParams
        def peak():
            text = Path("/proc/self/status").read_text()
            return int(text.split("VmHWM:")[1].split()[0]) * 1024
        def use(folder):
            stage = Stage.load(folder, LayerRange(1, 3))
            tokens = [1] * 64
            row = Row(stage.new_cache(), tokens, tokens, 1, SamplingParams())
            stage.run([row], [mx.zeros((64, stage.info.hidden_size))])
            return stage
        use(Path(sys.argv[2]))
        before = peak()
        stage = use(Path(sys.argv[1]))
        print(json.dumps([peak() - before, stage.weights_bytes, stage.info.weights_bytes]))
    """
    grown, own, whole = in_a_process(code, str(folder), str(small))
    assert whole > 3 * own
    assert grown < own + 30_000_000


def test_dependencies_are_told_apart() -> None:
    inputs = {name: mx.zeros((4,)) for name in "abcd"}
    a, b, c, _ = inputs.values()
    first, second = mx.split(mx.concatenate([a, b]), 2)
    outputs = {
        "both": first * 2,
        "other half": second,
        "same": c,
        "again": c,
        "contiguous": mx.contiguous(c[::2]),
        "none": mx.ones((3,)),
    }
    found = {name: "".join(sorted(on)) for name, on in dependencies(outputs, inputs).items()}
    assert found == {
        "both": "ab",
        "other half": "ab",
        "same": "c",
        "again": "c",
        "contiguous": "c",
        "none": "",
    }


def test_many_dependencies_are_drawn_in_parts() -> None:
    inputs = {f"in {n}": mx.zeros((2,)) for n in range(2_500)}
    arrays = list(inputs.values())
    outputs = {f"out {n}": arrays[n] + arrays[n + 1] for n in range(2_499)}
    found = dependencies(outputs, inputs)
    assert all(found[f"out {n}"] == {f"in {n}", f"in {n + 1}"} for n in range(2_499))


def test_dependencies_of_what_has_been_evaluated_are_refused() -> None:
    array = mx.zeros((2,)) + 1
    mx.eval(array)
    with pytest.raises(ValueError, match="evaluated already"):
        dependencies({"out": array * 2}, {"in": array})
