"""What a request may ask for, and many requests beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.generation import Generation, arguments
from tests.cluster.harness import Cluster
from tests.cluster.prompts import CLASS, CODE, IMPORT, LONG, PROMPTS
from tests.cluster.reference import Reference


def borders(reference: Reference) -> Iterator[tuple[str, str, int]]:
    """Prompts, their answers, and in these a border of two tokens with text around it that has not
    been seen before.
    """
    for prompt in PROMPTS[:-1]:
        tokens = reference.tokens(prompt, 60)
        pieces = [reference.text(tokens[:n]) for n in range(61)]
        for at in map(len, pieces[3:-8]):
            if pieces[-1].find(pieces[-1][at - 2 : at + 3]) == at - 2:
                yield prompt, pieces[-1], at


def test_a_stop_string_may_span_tokens(cluster: Cluster, reference: Reference) -> None:
    prompt, whole, at = next(borders(reference))
    stop = whole[at - 2 : at + 3]
    done = Generation(cluster, prompt, 400, stop=["never to be seen", stop]).result()
    assert done.reply["finish_reason"] == "stop"
    assert done.text == whole[: at - 2]
    reference.check(prompt, done.tokens)
    cluster.wait_empty()


def test_max_tokens(cluster: Cluster, reference: Reference) -> None:
    for most in (1, 2, 17):
        done = Generation(cluster, CODE, most).result()
        assert done.reply["finish_reason"] == "length"
        assert len(done.tokens) == done.reply["output_tokens"] == most
        reference.check(CODE, done.tokens)


def test_the_end_of_text(cluster: Cluster, reference: Reference) -> None:
    """The end-of-text token ends it and is not shown; with a bias it comes at once."""
    end = int(reference.tokenizer.eos_token_id)
    bias = {"logit_bias": {end: 100.0}}
    done = Generation(cluster, CODE, 20, stop_at_eos=True, **bias).result()
    assert (done.reply["finish_reason"], done.text, done.tokens) == ("stop", "", [])
    ignored = Generation(cluster, CODE, 5, **bias).result()
    assert ignored.tokens == [end] * 5


def test_log_probabilities(cluster: Cluster, reference: Reference) -> None:
    done = Generation(cluster, CODE, 12, logprobs=4).result()
    reference.check(CODE, done.tokens)
    assert len(done.logprobs) == 12
    for token, entry in zip(done.tokens, done.logprobs, strict=True):
        ids = [i for i, _ in entry["top"]]
        values = [v for _, v in entry["top"]]
        assert len(ids) == len(set(ids)) == 4
        assert values == sorted(values, reverse=True)
        assert ids[0] == token
        assert entry["logprob"] == pytest.approx(values[0])
        assert values[0] < 0.0
    assert Generation(cluster, CODE, 3).result().logprobs == []
    only = Generation(cluster, CODE, 3, logprobs=0).result().logprobs
    assert [entry["top"] for entry in only] == [[], [], []]


def test_eight_at_once_share_fairly(cluster: Cluster, reference: Reference) -> None:
    prompts = (CODE, CLASS, IMPORT)
    streams = [Generation(cluster, prompts[i % 3], 80) for i in range(8)]
    for i, stream in enumerate(streams):
        reference.check(prompts[i % 3], stream.result().tokens)
    # While all of them ran, none got less than half of what the luckiest got.
    begin = max(stream.times[0] for stream in streams)
    end = min(stream.times[-1] for stream in streams)
    counts = [sum(begin <= t <= end for t in stream.times) for stream in streams]
    assert end > begin
    assert min(counts) * 2 + 4 >= max(counts), counts


def test_a_long_prompt_beside_running_streams(cluster: Cluster, reference: Reference) -> None:
    """They go on while it is read: between its first and its last chunk tokens come."""
    streams = [Generation(cluster, prompt, 150).wait_tokens(5) for prompt in (CODE, CLASS)]
    long = Generation(cluster, LONG, 8).wait_started()
    before = [len(stream.tokens) for stream in streams]
    long.wait_tokens(1)
    assert all(len(s.tokens) > had for s, had in zip(streams, before, strict=True))
    reference.check(LONG, long.result().tokens)
    for prompt, stream in zip((CODE, CLASS), streams, strict=True):
        reference.check(prompt, stream.result().tokens)


@pytest.mark.parametrize(
    "poison",
    [
        {"top_k": 3.5},
        {"seed": 1.5, "temperature": 1.0},
        {"penalty_window": 2.5, "presence_penalty": 1.0},
        {"logit_bias": [[10**9, 1.0]]},
        {"logit_bias": [[-7, 1.0]]},
        {"logit_bias": [[5, float("nan")]]},
        {"logit_bias": [[1e400, 1.0]]},
        {"logprobs": 2.5},
        {"top_k": True},
        {"temperature": float("inf")},
        {"temperature": 1e-300},
        {"min_p": 1.0, "top_p": 0.0, "temperature": 1.0},
    ],
    ids=str,
)
def test_no_option_ends_a_stage(cluster: Cluster, poison: dict[str, Any]) -> None:
    """An odd value is refused, or means something; beside others it does no harm."""
    pids = cluster.stage_pids()
    wanted = arguments(CODE, 4)
    wanted["sampling"] |= poison
    done = Generation(cluster, CODE, 4, wanted=wanted).join()
    assert done.error is None or done.error.code == 2, done.error
    assert cluster.stage_pids() == pids
    assert Generation(cluster, CODE, 4).result().reply["reissues"] == 0
