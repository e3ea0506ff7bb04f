"""A second turn begins where the first one ended, on every stage."""

from __future__ import annotations

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import LONG


def test_the_second_turn_reuses_prompt_and_answer(cluster: Cluster) -> None:
    first = Generation(cluster, LONG, 24).result()
    turn = LONG + first.text
    warm = Generation(cluster, turn, 24).result()
    cached = warm.reply["cached_tokens"]
    assert cached == warm.start["cached_tokens"] > first.reply["prompt_tokens"]
    shown = cluster.ask("kv")
    assert shown["counters"]["hits"] >= 1
    assert {entry["state"] for entry in shown["entries"]} == {"kept"}
    assert len(shown["stages"]) == len(cluster.names)
    assert all(0 < s["kept_bytes"] <= s["used_bytes"] < s["budget_bytes"] for s in shown["stages"])
    pinned = shown["entries"][0]["sequence"]
    assert cluster.ask("kv.pin", sequence=pinned, pinned=True)["pinned"]
    assert pinned not in cluster.ask("kv.evict", sequence="all")["evicted"]
    assert cluster.ask("kv.evict", sequence=pinned) == {"evicted": [pinned]}
    again = Generation(cluster, turn, 24).result()
    assert again.reply["cached_tokens"] == 0
    assert again.tokens == warm.tokens
