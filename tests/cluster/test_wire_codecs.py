"""Hidden states are coded between real processes as the configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.baseline_coded import CodedModel
from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference
from transports.codecs.layout import Codec

SPLIT, COUNT = (4, 4), 48


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Cluster]:
    changes = {"n1": {"coordinator": {"codec": "fp8"}}}
    folder = tmp_path_factory.mktemp("codec") / "c"
    cluster = Cluster(folder, SPLIT, {"embedded": model_folder}, changes=changes).start()
    yield cluster
    cluster.close()


def test_the_tokens_are_those_of_coded_hidden_states(
    coded: Cluster, model_folder: Path, reference: Reference
) -> None:
    running = Generation(coded, CODE, COUNT).wait_tokens(1)
    rows = coded.ask("ps")["sequences"]
    assert all(row["codecs"] == [[4, "fp8"]] for row in rows)
    assert running.result().tokens == CodedModel(model_folder, SPLIT, Codec.FP8).decode(
        reference.encode(CODE), COUNT
    )
    first, between, last = coded.ask("pipeline")["hops"]
    assert (first["wire"], last["wire"]) == (None, None)
    assert (between["wire"]["codec"], between["wire"]["possible"]) == ("fp8", ["fp8", "int8"])
    traced = coded.ask("pipeline")["stages"][0]
    assert traced["encode"]["p50"] > 0


def test_the_next_turn_goes_on_from_it(coded: Cluster) -> None:
    first = Generation(coded, CODE, COUNT).result()
    again = Generation(coded, CODE + first.text + "\n", 4).result()
    assert again.reply["cached_tokens"] >= first.reply["prompt_tokens"]
