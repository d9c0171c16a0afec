"""Fixtures of the swarm's tests: one cluster for all of them, a stack a module."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import figures, pytest_runtest_makereport, record
from tests.live.own_daemon import bring_images
from tests.live.stack import Stack
from tests.swarm.cluster import REGISTRY, Cluster

__all__ = ["cluster", "figures", "pytest_runtest_makereport", "record", "stack"]

APP = Path(__file__).parents[1] / "live" / "app"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three managers which all take tasks."""
    with Cluster(tmp_path_factory.mktemp("swarm")) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the cluster; what it leaves behind fails its last test."""
    builder = cluster.nodes[0]
    fresh = Stack(tmp_path_factory.mktemp("stack"), docker_host=builder.host)
    shutil.rmtree(fresh.folder / "app")
    shutil.copytree(APP, fresh.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    fresh.configure(orchestrator="swarm", registry=REGISTRY, publishAddress="0.0.0.0", replicas="3")
    bring_images(fresh, builder)
    try:
        yield fresh
    finally:
        fresh.remove()
        left = cluster.leftovers()
        assert not left, f"left behind: {left}"
