"""The tokens are those of mlx-lm in one process, however the model is split."""

from __future__ import annotations

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import QuantizedKVCache

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import CLASS, CODE, LONG, PROMPTS, UNICODE
from tests.cluster.reference import Reference

SAMPLED = {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "seed": 7, "repetition_penalty": 1.1}


def test_one_after_another(cluster: Cluster, reference: Reference) -> None:
    for prompt in PROMPTS:
        done = Generation(cluster, prompt, 48).result()
        assert len(done.tokens) == done.reply["output_tokens"] == 48
        assert done.start["prompt_tokens"] == len(reference.encode(prompt))
        assert done.reply["reissues"] == 0
        reference.check(prompt, done.tokens)
    various = [prompt for prompt in PROMPTS if len(set(reference.tokens(prompt, 48))) >= 8]
    assert len(various) >= 3, "too few prompts with an answer of at least 8 distinct tokens"


def test_all_at_once(cluster: Cluster, reference: Reference) -> None:
    together = [(prompt, Generation(cluster, prompt, 48)) for prompt in PROMPTS]
    for prompt, running in together:
        reference.check(prompt, running.result().tokens)
        assert running.reply["reissues"] == 0


def test_text_is_that_of_the_tokens(cluster: Cluster, reference: Reference) -> None:
    """From its first character on, which may be a space."""
    for prompt in (UNICODE, *PROMPTS[:-1]):
        done = Generation(cluster, prompt, 48).result()
        assert done.text == reference.text(done.tokens)


def test_the_split_changes_nothing(two: Cluster, cluster: Cluster, reference: Reference) -> None:
    for prompt in (CODE, LONG):
        done = Generation(two, prompt, 48).result()
        assert done.reply["cached_tokens"] == 0
        reference.check(prompt, done.tokens)


def test_a_seed_is_the_same_everywhere(two: Cluster, cluster: Cluster) -> None:
    for prompt in (CODE, UNICODE):
        first = Generation(cluster, prompt, 64, **SAMPLED)
        beside = Generation(cluster, prompt, 64, **SAMPLED)
        elsewhere = Generation(two, prompt, 64, **SAMPLED)
        assert first.result().tokens == beside.result().tokens
        assert first.tokens == elsewhere.result().tokens
        other = Generation(cluster, prompt, 64, **{**SAMPLED, "seed": 8}).result()
        assert other.tokens != first.tokens


def test_quantised_kv(cluster: Cluster, reference: Reference) -> None:
    """Shown while it runs, and what mlx-lm generates with quantised caches."""
    layers = len(reference.model.layers)
    caches = [QuantizedKVCache(group_size=64, bits=8) for _ in range(layers)]
    prompt = mx.array(reference.encode(CLASS))
    steps = generate_step(prompt, reference.model, max_tokens=48, prompt_cache=caches)
    running = Generation(cluster, CLASS, 400, kv_bits=8).wait_tokens(1)
    rows = cluster.ask("kv")["sequences"]
    assert {(row["kind"], row["kv_bits"]) for row in rows} == {
        ("2 × full 8-bit", 8),
        ("3 × full 8-bit", 8),
    }
    assert running.result().tokens[:48] == [int(token) for token, _ in steps]
