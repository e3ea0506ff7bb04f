"""A cluster of three stages for most tests, and one of two; the model is a copy, as training may
replace it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import embedded
from tests.cluster.harness import Cluster, clean
from tests.cluster.reference import Reference


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "target"
    shutil.copytree(embedded.TARGET, folder)
    return folder


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> Reference:
    return Reference(model_folder)


@pytest.fixture(scope="session")
def _three(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("three") / "c"
    cluster = Cluster(folder, (3, 3, 2), {"embedded": model_folder}).start()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def _two(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("two") / "c"
    cluster = Cluster(folder, (5, 3), {"embedded": model_folder}).start()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(_three: Cluster) -> Iterator[Cluster]:
    with clean(_three):
        yield _three


@pytest.fixture
def two(_two: Cluster) -> Iterator[Cluster]:
    with clean(_two):
        yield _two
