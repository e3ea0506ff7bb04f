"""What bad input gets: one line that says what, why and what to do, an exit code, no harm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference
from tests.cluster.shardctl import all_refused, refused


@pytest.fixture(autouse=True)
def _goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Afterwards the cluster generates, with the same processes."""
    if "cluster" not in request.fixturenames:
        yield
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    reference: Reference = request.getfixturevalue("reference")
    pids = [*cluster.stage_pids(), cluster.coordinator_pid()]
    yield
    assert [*cluster.stage_pids(), cluster.coordinator_pid()] == pids
    reference.check(CLASS, Generation(cluster, CLASS, 8).result().tokens)


def test_no_coordinator(tmp_path: Path) -> None:
    error = refused(None, 4, "--endpoint", "tcp://127.0.0.1:9", "status")
    assert "connection refused" in error
    assert "shardctl up" in error
    assert "127.0.0.1:9" in refused(None, 4, "--endpoint", "127.0.0.1:9", "generate", "x")


def test_prompts_that_are_none(cluster: Cluster) -> None:
    assert "UTF-8" in refused(cluster, 1, "generate", stdin=b"caf\xe9")
    assert "empty" in refused(cluster, 2, "generate", stdin=b"")
    assert "empty" in refused(cluster, 2, "generate", "", stdin=b"")
    assert "no such file" in refused(cluster, 1, "generate", "-f", "/nowhere").lower()


def test_a_prompt_over_the_context(cluster: Cluster) -> None:
    error = refused(cluster, 2, "generate", "--raw", stdin=b"def f(x): return x\n" * 3000)
    assert "context is 4096" in error
    long = refused(cluster, 2, "generate", "--raw", stdin=b"abc " * 250_000)
    assert "context" in long


def test_options(cluster: Cluster) -> None:
    all_refused(
        cluster,
        2,
        ("generate", "x", "--temprature", "1"),
        ("generate", "x", "--temperature", "hot"),
        ("generate", "x", "--temperature", "-1"),
        ("generate", "x", "--top-p", "2"),
        ("generate", "x", "--max-tokens", "0"),
        ("generate", "x", "--seed", "-1"),
        ("generate", "x", "--stop", ""),
        ("generate", "x", "--logit-bias", "many"),
        ("generate", "x", "--logit-bias", "-7=1"),
        ("generate", "x", "--logprobs", "3"),
        ("generate", "x", "--kv-bits", "3"),
        ("generate", "x", "--system", "you are"),
        ("staus",),
        ("-o", "yaml", "status"),
    )
    assert "no sequence" in refused(cluster, 1, "cancel", "0123abcd")
    refused(cluster, 2, "logs", "nobody")


def test_an_unknown_model(cluster: Cluster) -> None:
    error = refused(cluster, 1, "model", "load", "gpt-7")
    assert "gpt-7" in error
    assert "embedded" in error
    assert refused(cluster, 1, "model", "load", "/nowhere/at/all")


@pytest.mark.parametrize("split", ["3,3,1", "8,0,0", "3,3,3", "2,2,2,2", "3,-1,6", "a,b", ""])
def test_a_wrong_split(cluster: Cluster, split: str) -> None:
    error = refused(cluster, 2, "model", "load", "embedded", "--split", split)
    assert "split" in error
    assert cluster.state() == "ready"


def test_damaged_models(cluster: Cluster, model_folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(model_folder, tmp_path / name))

    truncated, no_tokenizer, no_config, bad_config, no_weights, odd = map(
        copy, ("truncated", "no-tokenizer", "no-config", "bad-config", "no-weights", "odd")
    )
    weights = "model.safetensors"
    (truncated / weights).write_bytes((model_folder / weights).read_bytes()[:-1000])
    for file in no_tokenizer.glob("tokenizer*"):
        file.unlink()
    (no_config / "config.json").unlink()
    (bad_config / "config.json").write_text("{")
    (no_weights / weights).unlink()
    text = (odd / "config.json").read_text().replace('"llama"', '"perceptron"')
    (odd / "config.json").write_text(text)
    for folder, words in (
        (truncated, (weights,)),
        (no_tokenizer, ("tokenizer",)),
        (no_config, ("config.json", "no-config")),
        (bad_config, ("config.json",)),
        (no_weights, ("safetensors", "no-weights")),
        (odd, ("perceptron",)),
    ):
        error = refused(cluster, 1, "model", "load", str(folder))
        assert any(word in error for word in words), error
        assert cluster.state() == "ready", f"after {error}"
    assert cluster.ask("status")["model"]["name"] == "embedded"


def test_a_request_meanwhile_is_not_harmed(cluster: Cluster, reference: Reference) -> None:
    running = Generation(cluster, CODE, 200).wait_tokens(5)
    refused(cluster, 1, "model", "load", "gpt-7")
    refused(cluster, 2, "model", "load", "embedded", "--split", "1,1")
    reference.check(CODE, running.result().tokens)
    assert len(running.tokens) == 200
