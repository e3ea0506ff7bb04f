"""Saved KV outlives every process and another split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.generation import Generation, arguments
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE, LONG
from tests.cluster.reference import Reference


def test_saved_by_two_stages_read_by_three(
    tmp_path: Path, model_folder: Path, reference: Reference
) -> None:
    """What a conversation's turn has left is saved by itself."""
    length = len(reference.encode(LONG))
    talk = {**arguments(LONG, 12), "conversation": "talk"}
    cluster = Cluster(tmp_path / "c", (3, 5), {"embedded": model_folder}).start()
    try:
        Generation(cluster, LONG, 12, wanted=talk).result()
        (entry,) = until(lambda: on_disk(cluster), "it is saved")
        assert entry["tokens"] == length + 11  # the last token was not computed
        saved = cluster.ask("kv.save", conversation="talk")
        assert (saved["entry"], saved["bytes"]) == (entry["entry"], entry["bytes"])
        cluster.close()

        cluster.names, cluster.split = ["n1", "n2", "n3"], [2, 2, 4]
        cluster.start()
        until(lambda: on_disk(cluster), "all is told")
        second = Generation(cluster, LONG, 48).result()
        assert second.reply["cached_tokens"] == length - 1
        reference.check(LONG, second.tokens)
        more = {**arguments(CODE, 8), "conversation": "talk"}
        assert Generation(cluster, CODE, 8, wanted=more).result().reply["cached_tokens"] > length
        assert cluster.ask("kv.load", conversation="talk")["tokens"] >= length + 11
        assert not cluster.events("kv-not-loaded")
    finally:
        cluster.close()


def on_disk(cluster: Cluster) -> list[dict[str, Any]]:
    entries = cluster.ask("kv")["entries"]
    return [entry for entry in entries if entry["state"] == "saved" and entry["complete"]]
